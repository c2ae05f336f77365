// Runs at the very end of the job, whatever happened before it: after a failed
// installation there may be nothing to run.
"use strict";
const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");

const dir = process.env.STATE_dir;
const program = dir && path.join(dir, "bin", "nix-builders");
if (!program || !fs.existsSync(program)) {
  console.log("Nothing was set up; there is nothing to tear down.");
} else {
  const left = spawnSync(program, ["leave"], { stdio: "inherit", timeout: 60_000 });
  if (left.status !== 0) {
    // The job's own result stands: a runner is thrown away with whatever is left on it.
    const why = left.error?.message ?? (left.signal ? `signal ${left.signal}` : `exit code ${left.status}`);
    console.log(`::warning title=Teardown::nix-builders leave did not end well (${why}); its messages stand in the log of this step.`);
  }
}
if (dir) {
  fs.rmSync(dir, { recursive: true, force: true });
}
