// Runs main.js and post.js as GitHub's runner does: processes of their own, which know
// each other only by the files and variables of the job. `node --test post/post.test.js` runs them.
"use strict";
const assert = require("node:assert/strict");
const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { test } = require("node:test");

// A job's own directory, in which nothing is but what the runner puts there.
const newJob = (t) => {
  const temp = fs.mkdtempSync(path.join(os.tmpdir(), "a job's "));
  t.after(() => fs.rmSync(temp, { recursive: true, force: true }));
  const env = { PATH: process.env.PATH, RUNNER_TEMP: path.join(temp, "tmp") };
  fs.mkdirSync(env.RUNNER_TEMP);
  for (const name of ["GITHUB_STATE", "GITHUB_PATH", "GITHUB_OUTPUT"]) {
    env[name] = path.join(temp, name);
    fs.writeFileSync(env[name], "");
  }
  return env;
};

const run = (script, env) => spawnSync(process.execPath, [path.join(__dirname, script)], { env, encoding: "utf8", timeout: 30_000 });

// Reads what a step has left for the runner: a line NAME=VALUE each.
const read = (file) => Object.fromEntries(fs.readFileSync(file, "utf8").trim().split("\n").map((line) => line.split(/=(.*)/s).slice(0, 2)));

// Runs main.js, and puts a program where install.sh would. Returns what post.js gets.
const begin = (t, program) => {
  const env = newJob(t);
  const main = run("main.js", env);
  assert.equal(main.status, 0, main.stderr);
  const { dir } = read(env.GITHUB_STATE);
  if (program) {
    fs.writeFileSync(path.join(dir, "bin", "nix-builders"), `#!/bin/sh\n${program}\n`, { mode: 0o755 });
  }
  return { dir, env, post: () => run("post.js", { PATH: env.PATH, RUNNER_TEMP: env.RUNNER_TEMP, STATE_dir: dir }) };
};

test("main.js makes a directory that root may read, and tells of it", (t) => {
  const { dir, env } = begin(t);
  assert.equal(path.dirname(dir), env.RUNNER_TEMP);
  assert.equal(fs.statSync(dir).mode & 0o777, 0o755);
  assert.deepEqual(fs.readdirSync(dir), ["bin"]);
  assert.deepEqual(read(env.GITHUB_OUTPUT), { dir, source: path.dirname(__dirname) });
  assert.equal(fs.readFileSync(env.GITHUB_PATH, "utf8"), `${path.join(dir, "bin")}\n`);
});

test("two actions in one job have a directory each", (t) => {
  const env = newJob(t);
  assert.equal(run("main.js", env).status, 0);
  assert.equal(run("main.js", env).status, 0);
  assert.equal(fs.readdirSync(env.RUNNER_TEMP).length, 2);
});

test("post.js leaves, and takes the directory away", (t) => {
  const { dir, post } = begin(t, 'echo "left with: $*"');
  const { status, stdout } = post();
  assert.equal(status, 0);
  assert.equal(stdout, "left with: leave\n");
  assert.equal(fs.existsSync(dir), false);
});

test("a teardown that does not end well is a warning, and the job's result stands", (t) => {
  const { dir, post } = begin(t, "echo why >&2; exit 3");
  const { status, stdout, stderr } = post();
  assert.equal(status, 0);
  assert.match(stdout, /^::warning title=Teardown::.*exit code 3/m);
  assert.equal(stderr, "why\n");
  assert.equal(fs.existsSync(dir), false);
});

test("a teardown that was killed is one too", (t) => {
  const { post } = begin(t, "kill -9 $$");
  const { status, stdout } = post();
  assert.equal(status, 0);
  assert.match(stdout, /^::warning title=Teardown::.*SIGKILL/m);
});

test("a program that can't be run is one too", (t) => {
  const { dir, post } = begin(t, "exit 0");
  fs.chmodSync(path.join(dir, "bin", "nix-builders"), 0o644);
  const { status, stdout } = post();
  assert.equal(status, 0);
  assert.match(stdout, /^::warning title=Teardown::.*EACCES/m);
});

test("where nothing was installed there is nothing to tear down", (t) => {
  const { dir, post } = begin(t);
  const { status, stdout } = post();
  assert.equal(status, 0);
  assert.match(stdout, /nothing to tear down/);
  assert.equal(fs.existsSync(dir), false);
});

test("nor where main.js never ran", (t) => {
  const { status, stdout } = run("post.js", newJob(t));
  assert.equal(status, 0);
  assert.match(stdout, /nothing to tear down/);
});
