// Makes the directory of this job's programs, and remembers it for post.js.
"use strict";
const fs = require("node:fs");
const path = require("node:path");

const dir = fs.mkdtempSync(path.join(process.env.RUNNER_TEMP, "nix-builders-"));
const bin = path.join(dir, "bin");
fs.mkdirSync(bin);
// Whoever else is on this machine may read and run them, root among them.
fs.chmodSync(dir, 0o755);

fs.appendFileSync(process.env.GITHUB_STATE, `dir=${dir}\n`);
fs.appendFileSync(process.env.GITHUB_PATH, `${bin}\n`);
fs.appendFileSync(process.env.GITHUB_OUTPUT, `dir=${dir}\nsource=${path.dirname(__dirname)}\n`);
