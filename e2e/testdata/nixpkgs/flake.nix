# Stands in for nixpkgs, as far as our flake.nix uses it, for it can't be downloaded in
# every place where tests run. It takes what the real functions take and nothing else, and
# its packages check what they were given instead of building it. A directory bb with
# busybox is put beside it.
{
  outputs =
    { self }:
    let
      lib = {
        genAttrs =
          names: f:
          builtins.listToAttrs (
            map (name: {
              inherit name;
              value = f name;
            }) names
          );
        licenses.mit.spdxId = "MIT";
      };
      bb = builtins.path {
        path = ./bb;
        name = "bb";
      };
      run =
        system: name: script: more:
        derivation (
          {
            inherit name system;
            builder = "${bb}/bin/sh";
            args = [
              "-euc"
              script
            ];
            PATH = "${bb}/bin";
          }
          // more
        );
      text = builtins.isString;
    in
    {
      inherit lib;
      legacyPackages =
        lib.genAttrs
          [
            "x86_64-linux"
            "aarch64-linux"
            "x86_64-darwin"
            "aarch64-darwin"
          ]
          (system: {
            inherit lib;
            buildGoModule =
              {
                pname,
                version,
                src,
                vendorHash,
                subPackages,
                env,
                ldflags,
                doCheck,
                meta,
              }:
              assert text pname && text version && text vendorHash && !doCheck;
              assert builtins.all text subPackages && builtins.all text ldflags && builtins.all text (builtins.attrValues env);
              assert meta.license.spdxId == "MIT" && builtins.elem system meta.platforms;
              run system "${pname}-${version}" ''
                for package in $subPackages; do
                  grep -q '^package main$' "$src/$package/main.go"
                done
                test -f "$src/go.mod"
                test -f "$src/go.sum"
                mkdir -p "$out/bin"
                echo "$ldflags" > "$out/bin/$program"
              '' { inherit src subPackages ldflags; program = meta.mainProgram; }
              // {
                inherit vendorHash;
              };
            mkShell =
              { packages }:
              run system "shell" "echo $packages > $out" { inherit packages; };
            go = run system "go" "echo go > $out" { };
            gnumake = run system "gnumake" "echo make > $out" { };
            nodejs = run system "nodejs" "echo node > $out" { };
            shellcheck = run system "shellcheck" "echo shellcheck > $out" { };
          });
    };
}
