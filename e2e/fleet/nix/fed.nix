# A path that several builders may want, and another that needs it.
{ tag }:
let
  tools = import ./tools.nix;
in
tools.run {
  name = "needs-${tag}";
  inputs = [
    (tools.run {
      name = "needed-${tag}";
      script = "mkdir $out; head -c 8m /dev/urandom > $out/data; ln -s data $out/link";
    })
  ];
  script = "echo $inputs > $out";
}
