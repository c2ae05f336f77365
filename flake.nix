{
  description = "Turns the runners of one workflow run into one distributed Nix build cluster, over Tailscale";

  # The last nixpkgs that knows Intel Macs, and GitHub still has them. There is no
  # flake.lock: whoever builds takes this branch as it is then.
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
        "x86_64-darwin"
        "aarch64-darwin"
      ];
      each = f: nixpkgs.lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});
      version = self.shortRev or self.dirtyShortRev or "unknown";
    in
    {
      packages = each (pkgs: rec {
        # Needs the Go that go.mod asks for, or newer. Run it with tailscale and
        # tailscaled on PATH, of whatever version nixpkgs has.
        nix-builders = pkgs.buildGoModule {
          pname = "nix-builders";
          inherit version;
          src = self;
          # The hash of what `go mod vendor` makes. A test holds it, and prints the new one.
          vendorHash = "sha256-ZGBPMWcZZ3eBJ7iMo3MfGdAdOgByU80IIwTmGBuLz08=";
          subPackages = [
            "cmd/nix-builders"
            "cmd/nix-builders-hook"
          ];
          env.CGO_ENABLED = "0";
          ldflags = [
            "-s"
            "-w"
            "-X main.version=${version}"
          ];
          # The tests want git, a network of their own and, many of them, root.
          doCheck = false;
          meta = {
            description = "Coordinator, builder and commands of a distributed Nix build cluster of CI runners";
            homepage = "https://github.com/Misaka13514/setup-distributed-nix-builds";
            license = pkgs.lib.licenses.mit;
            mainProgram = "nix-builders";
            platforms = systems;
          };
        };
        default = nix-builders;
      });

      devShells = each (pkgs: {
        default = pkgs.mkShell {
          packages = [
            pkgs.go
            pkgs.gnumake
            pkgs.nodejs
            pkgs.shellcheck
          ];
        };
      });
    };
}
