"use strict";
const { expect, noNixYet, sudo } = require("./stand-in.js");

expect({ "hatchet-protocol": "cleave" });
noNixYet();
sudo("mkdir", "-p", "/nix");
console.log("The disk is /nix's.");
