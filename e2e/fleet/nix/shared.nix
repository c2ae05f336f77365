# One big input, and as many derivations that read it as fill all builders for a while.
{
  tag,
  megabytes ? 200,
  users ? 12,
}:
let
  tools = import ./tools.nix;
  input = tools.run {
    name = "shared-${tag}";
    script = "head -c ${toString megabytes}m /dev/urandom > $out";
  };
in
builtins.genList (
  i:
  tools.run {
    name = "user-${toString i}-${tag}";
    inputs = [ input ];
    script = "cat $inputs | wc -c; sleep 3; cat /lab/hostname > $out";
  }
) users
