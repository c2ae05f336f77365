# Leaves that sleep and say where they were built, and one derivation that needs them
# all. `tag` makes the derivations new, so that nothing is taken from an earlier run.
{
  tag,
  leaves ? 12,
  seconds ? "1",
  system ? "x86_64-linux",
}:
let
  tools = import ./tools.nix;
  leaf =
    n:
    tools.run {
      name = "leaf-${toString n}-${tag}";
      inherit system;
      script = "sleep ${seconds}; echo leaf ${toString n} on $(cat /lab/hostname) > $out";
    };
in
tools.run {
  name = "fan-in-${tag}";
  inherit system;
  inputs = builtins.genList leaf leaves;
  script = "cat $inputs | sort -k 4 > $out; echo fan-in on $(cat /lab/hostname) >> $out";
}
