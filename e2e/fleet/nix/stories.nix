# One derivation of each kind that Nix treats in a way of its own. `tag` makes them new.
{
  tag,
  seconds ? "600",
  megabytes ? "400",
  url ? "",
}:
let
  tools = import ./tools.nix;
  # As tools.run, with more attributes.
  run =
    name: script: more:
    derivation (
      {
        name = "${name}-${tag}";
        system = "x86_64-linux";
        builder = "${tools.busybox}/bin/sh";
        PATH = "${tools.busybox}/bin";
        args = [
          "-euc"
          script
        ];
      }
      // more
    );
  whereItIs = "cat /lab/hostname > $out";
  eat = "dd if=/dev/zero of=/dev/null bs=${megabytes}M count=1";
in
rec {
  plain = run "plain" whereItIs { };
  # Nix builds it where it is asked to, if it may build there at all.
  local = run "local" whereItIs { preferLocalBuild = true; };
  # Speaks a line a second until it is killed.
  endless = run "endless" "while true; do echo still here; sleep 1; done" { };
  # Says one line, and then nothing.
  silent = run "silent" "echo quiet now; sleep ${seconds}; echo > $out" { };
  loud = run "loud" "for i in $(seq 1000); do echo line $i of ${tag}; done; ${whereItIs}" { };
  fails = run "fails" "echo the compiler is unhappy with line 42; sleep 1; exit 3" { };
  # The builder itself is the first process of its sandbox, which nobody in there can kill.
  killed = run "killed" "sh -c 'kill -9 $$'; ${whereItIs}" { };
  # Need memory at once: in a process of theirs, in the builder itself, and in one whose end
  # they make an error of their own.
  hungry = run "hungry" "${eat}; ${whereItIs}" { };
  hungryItself = run "hungry-itself" "${whereItIs}; exec ${eat}" { };
  hungryCompiler = run "hungry-compiler" "${eat} || { echo the compiler has crashed; exit 1; }; ${whereItIs}" { };
  # Its output is known before it is built.
  fixed = run "fixed" "echo ${tag} > $out" {
    outputHashMode = "flat";
    outputHashAlgo = "sha256";
    outputHash = builtins.hashString "sha256" "${tag}\n";
  };
  wrongHash = run "wrong-hash" "echo ${tag} > $out" {
    outputHashMode = "flat";
    outputHashAlgo = "sha256";
    outputHash = builtins.hashString "sha256" "something else";
  };
  # Its output is named by what is in it.
  addressed = run "addressed" whereItIs {
    __contentAddressed = true;
    outputHashMode = "recursive";
    outputHashAlgo = "sha256";
  };
  several = run "several" "echo a > $out; echo b > $dev; echo $out > $doc" {
    outputs = [
      "out"
      "dev"
      "doc"
    ];
  };
  # Nix builds one to know what to build.
  imported = run "imported" "echo ${import (run "to-import" "echo '\"from ${tag}\"' > $out" { })} > $out" { };
  # Nix itself is the builder.
  fetched = derivation {
    name = "fetched-${tag}";
    system = "builtin";
    builder = "builtin:fetchurl";
    inherit url;
    outputHashMode = "flat";
    outputHashAlgo = "sha256";
    outputHash = builtins.hashFile "sha256" /opt/bb/bin/busybox;
    preferLocalBuild = true;
  };
  needsFeature = run "needs-feature" whereItIs { requiredSystemFeatures = [ "nobody-has-this" ]; };
  # One that fails, one that does not, and one that needs both.
  half = run "half" "echo ${plain} ${fails} > $out" { };
}
