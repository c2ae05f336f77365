# A derivation that says something and fails.
{ tag }:
(import ./tools.nix).run {
  name = "fails-${tag}";
  script = "echo the compiler is unhappy with line 42; exit 3";
}
