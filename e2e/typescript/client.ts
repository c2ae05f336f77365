// Reads a cluster and stops it, with nothing but the types that openapi-typescript
// generates from the contract: what it may call and what it gets is checked by tsc.
import createClient from "openapi-fetch";
import type { components, paths } from "./contract.js";

const api = createClient<paths>({ baseUrl: process.argv[2] ?? "" });

const { data: cluster, error } = await api.GET("/cluster", { params: { query: {} } });
if (error !== undefined) {
  throw new Error(`${error.title}: ${error.detail}`);
}
const ready: components["schemas"]["Builder"][] = cluster.builders.filter((b) => b.state === "ready");

// A name that is none of the cluster's releases nobody.
const stranger = await api.POST("/stop-nix-builders", { params: { query: { builder: ["nobody"] } } });

const stop = await api.POST("/stop-nix-builders", { params: { query: { wait: 30 } } });
if (stop.error !== undefined) {
  throw new Error(`${stop.error.title}: ${stop.error.detail}`);
}
// Those who left can be read about still.
const after = await api.GET("/cluster", { params: { query: {} } });

console.log(
  JSON.stringify({
    id: cluster.id,
    phase: cluster.phase,
    ready: ready.map((b) => b.name),
    systems: ready.flatMap((b) => b.offer?.systems ?? []),
    jobs: ready.map((b) => `${b.max_jobs} at speed ${b.speed_factor}`),
    peaks: after.data?.builders.map((b) => b.vitals?.peak_builds ?? -1),
    stranger: stranger.error?.status,
    stopped: stop.data.phase,
    left: stop.data.builders.filter((b) => b.left).map((b) => b.name),
  }),
);
