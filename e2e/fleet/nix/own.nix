# What hook_functional_test.go builds in stores of its own. `tag` makes them new.
{
  tag,
  seconds ? "600",
}:
let
  tools = import ./tools.nix;
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
  needs = feature: run "needs-${feature}" "echo ${feature} > $out" { requiredSystemFeatures = [ feature ]; };
in
rec {
  plain = run "plain" "echo a word; echo plain > $out" { };
  slow = run "slow" "echo a word; sleep ${seconds}; echo slow > $out" { };
  fails = run "fails" "echo the last words; exit 3" { };
  endless = run "endless" "while true; do echo still here; sleep 1; done" { };
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
  addressed = run "addressed" "echo ${tag} > $out" {
    __contentAddressed = true;
    outputHashMode = "recursive";
    outputHashAlgo = "sha256";
  };
  # Each part can be built by one builder only, and the whole by none of those that insist on
  # a feature.
  features = run "features" "cat ${needs "foo"} ${needs "bar"} ${needs "baz"} > $out" { };
  both = run "both" "cat ${slow} ${run "slow2" "sleep ${seconds}; echo slow2 > $out" { }} > $out" { };
}
