# What the workflows build: leaves that take a moment and say on which host they were
# built, for each system in systems.json, and a package that needs them all. No nixpkgs,
# only a busybox that is put beside this file.
{
  outputs =
    { self }:
    let
      systems = builtins.fromJSON (builtins.readFile ./systems.json);
      tools = builtins.path {
        path = ./tools;
        name = "tools";
      };
      run =
        {
          name,
          system ? "x86_64-linux",
          inputs ? [ ],
          script,
        }:
        derivation {
          inherit name system inputs;
          builder = "${tools}/busybox";
          args = [
            "sh"
            "-euc"
            script
          ];
          do = "${tools}/busybox";
        };
      leaves =
        prefix: count: system:
        builtins.genList (
          n:
          run {
            name = "${prefix}-${system}-${toString n}";
            inherit system;
            script = "$do sleep 1; echo ${prefix} ${toString n} for ${system} on $($do cat /lab/hostname) | $do tee $out";
          }
        ) count;
      join =
        name: inputs:
        run {
          inherit name inputs;
          script = "$do cat $inputs | $do sort > $out; echo ${name} on $($do cat /lab/hostname)";
        };
    in
    {
      packages.x86_64-linux = {
        my-package = join "my-package" (builtins.concatMap (leaves "leaf" 4) systems);
        farm = join "farm" (leaves "service" 12 "x86_64-linux");
        broken = run {
          name = "broken";
          inputs = leaves "part" 2 "x86_64-linux";
          script = "echo the compiler is unhappy with line 42; exit 3";
        };
      };
    };
}
