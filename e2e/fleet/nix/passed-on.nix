# An output of many bytes, and three derivations that need it and take a while, so that they
# are built side by side.
{
  tag,
  megabytes ? 40,
}:
let
  tools = import ./tools.nix;
  payload = tools.run {
    name = "payload-${tag}";
    script = "head -c ${toString megabytes}m /dev/urandom > $out";
  };
  user =
    n:
    tools.run {
      name = "user-${toString n}-${tag}";
      inputs = [ payload ];
      script = "sleep 2; echo user ${toString n} of $(wc -c < ${payload}) bytes on $(cat /lab/hostname) > $out";
    };
in
tools.run {
  name = "passed-on-${tag}";
  inputs = builtins.genList user 3;
  script = "cat $inputs > $out";
}
