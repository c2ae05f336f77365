# An output of many bytes that nothing makes smaller, which take their time to come back.
{
  tag,
  megabytes ? 200,
}:
(import ./tools.nix).run {
  name = "big-${tag}";
  script = "dd if=/dev/urandom of=$out bs=1M count=${toString megabytes} 2>/dev/null";
}
