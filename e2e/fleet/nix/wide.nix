# Many derivations that need nothing from each other. Each says where it was built; those
# that sleep, since when too, by the clock of the machine, which all its hosts share. `tag`
# makes them new.
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
    script =
      if seconds == "0" then
        "cat /lab/hostname > $out"
      else
        "up=$(cut -d ' ' -f 1 /proc/uptime); sleep ${seconds}; echo $(cat /lab/hostname) $up > $out";
  }
) n
