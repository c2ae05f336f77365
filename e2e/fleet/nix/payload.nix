# Outputs of random bytes, which nothing makes smaller. Each says when it was made,
# by the clock of the machine: what Nix does after that is to look through it and bring it
# back.
{
  tag,
  n ? 1,
  megabytes ? 500,
}:
let
  tools = import ./tools.nix;
in
builtins.genList (
  i:
  tools.run {
    name = "payload-${toString i}-${tag}";
    script = ''
      mkdir $out
      head -c ${toString megabytes}m /dev/urandom > $out/bytes
      cut -d ' ' -f 1 /proc/uptime > $out/made
    '';
  }
) n
