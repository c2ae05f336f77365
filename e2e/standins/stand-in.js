// What every stand-in has beside it, as stand-in.js.
"use strict";
const { execFileSync } = require("node:child_process");
const fs = require("node:fs");

const fail = (why) => {
  console.log(`::error title=Stand-in::${process.argv[1]}: ${why}`);
  process.exit(1);
};

// Each input is in a variable of its own, those that nobody gave with their default. An
// action is never told of an input that it does not know: here it is.
const expect = (expected) => {
  const given = {};
  for (const [name, value] of Object.entries(process.env)) {
    if (name.startsWith("INPUT_")) {
      given[name.slice("INPUT_".length).toLowerCase().replaceAll("_", "-")] = value;
    }
  }
  for (const [name, value] of Object.entries(given)) {
    const want = expected[name];
    if (want === undefined) fail(`it has no input ${name}`);
    if (want instanceof RegExp ? !want.test(value) : want !== value) {
      fail(`its input ${name} is ${JSON.stringify(value)}, not ${want}`);
    }
  }
  for (const name of Object.keys(expected)) {
    if (!(name in given)) fail(`its input ${name} is missing`);
  }
  return given;
};

const sudo = (...args) => execFileSync("sudo", ["-n", ...args], { stdio: ["ignore", "inherit", "inherit"] });

// Writes a file of root's.
const root = (name, text, mode = "644") =>
  execFileSync("sudo", ["-n", "sh", "-euc", 'mkdir -p "${0%/*}"; cat >"$0"; chmod "$1" "$0"', name, mode], {
    input: text,
    stdio: ["pipe", "inherit", "inherit"],
  });

// Adds a line to the file in that variable.
const add = (variable, line) => fs.appendFileSync(process.env[variable], `${line}\n`);

// Whether this user finds Nix, and its daemon answers.
const nixWorks = () => {
  try {
    execFileSync("nix", ["store", "info", "--store", "daemon"], { stdio: ["ignore", "ignore", "inherit"] });
    return true;
  } catch {
    return false;
  }
};

const noNixYet = () => {
  for (const name of ["/nix/var/nix/profiles/default/bin/nix", "/etc/nix/nix.conf", "/usr/bin/nix"]) {
    if (fs.existsSync(name)) fail(`Nix is there already: ${name}`);
  }
};

module.exports = { add, expect, fail, nixWorks, noNixYet, root, sudo };
