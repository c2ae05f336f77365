"use strict";
const fs = require("node:fs");
const { add, expect, fail, nixWorks, noNixYet, root, sudo } = require("./stand-in.js");

const given = expect({
  "extra-nix-config": /^/,
  "github-access-token": "",
  "install-url": "",
  "install-options": "",
  "nix-path": "",
  "enable-kvm": "true",
  "set-as-trusted-user": "true",
});
if (fs.existsSync("/nix/var/nix/profiles/default/bin/nix")) {
  // As the real one: nothing to do.
  console.log("Aborting: Nix is already installed.");
  process.exit(0);
}
noNixYet();

root(
  "/etc/nix/nix.conf",
  `build-users-group = nixbld
experimental-features = nix-command flakes
trusted-users = root ${process.env.USER}
max-jobs = auto
show-trace = true
${given["extra-nix-config"]}
# The lab's: no Internet, what the machine passes for, and sandboxes that show its name.
substituters =
system = ${fs.readFileSync("/opt/lab/system", "utf8").trim()}
extra-platforms =
sandbox = true
sandbox-paths = /lab/hostname=/etc/hostname
`,
);

const profile = "/nix/var/nix/profiles/default/bin";
sudo("mkdir", "-p", profile);
for (const name of fs.readdirSync("/opt/lab/nix-bin")) {
  if (name === "nix" || name.startsWith("nix-")) sudo("ln", "-s", `/opt/lab/nix-bin/${name}`, `${profile}/${name}`);
}
sudo("systemctl", "start", "nix-daemon");
// By which a test sees that it is again as it was.
sudo("cp", "/etc/nix/nix.conf", "/opt/lab/nix.conf");

add("GITHUB_PATH", profile);
add("GITHUB_PATH", `${process.env.HOME}/.nix-profile/bin`);
process.env.PATH = `${profile}:${process.env.PATH}`;
if (!nixWorks()) fail("Nix does not work");
console.log("Nix is installed.");
