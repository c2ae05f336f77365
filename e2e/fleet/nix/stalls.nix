# A derivation that does not end on one host, and at once on any other.
{ tag, host }:
(import ./tools.nix).run {
  name = "stalls-${tag}";
  script = ''
    if [ "$(cat /lab/hostname)" = "${host}" ]; then
      sleep 600
    fi
    echo it was built on $(cat /lab/hostname) > $out
  '';
}
