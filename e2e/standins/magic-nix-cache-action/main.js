"use strict";
const { expect, fail, nixWorks } = require("./stand-in.js");

expect({ "use-flakehub": "false", "diagnostic-endpoint": "" });
if (!nixWorks()) fail("it was called where Nix does not work");
console.log("The cache is set up.");
