# Many derivations that need nothing from each other. Each says where it was built and
# since when. `tag` makes them new.
{
  tag,
  n ? 100,
  seconds ? "0",
}:
let
  tools = import ./tools.nix;
in
builtins.genList (
  i:
  tools.run {
    name = "wide-${toString i}-${tag}";
    script = "began=$(date +%s.%N); sleep ${seconds}; echo $(cat /lab/hostname) $began > $out";
  }
) n
