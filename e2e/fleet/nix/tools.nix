# What the lab's derivations are made of: no nixpkgs, only the busybox of the hosts.
rec {
  busybox = builtins.path {
    path = /opt/bb;
    name = "busybox";
  };
  run =
    {
      name,
      script,
      system ? "x86_64-linux",
      inputs ? [ ],
    }:
    derivation {
      inherit name system inputs;
      builder = "${busybox}/bin/sh";
      PATH = "${busybox}/bin";
      args = [
        "-euc"
        script
      ];
    };
}
