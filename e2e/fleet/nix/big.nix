# An output of many bytes that nothing makes smaller, which take their time to come back.
{
  tag,
  megabytes ? 200,
}:
(import ./tools.nix).run {
  name = "big-${tag}";
  script = "head -c ${toString megabytes}m /dev/urandom > $out";
}
