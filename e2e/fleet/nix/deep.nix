# Chains of derivations, each of which needs the one before it.
{
  tag,
  chains ? 10,
  depth ? 100,
}:
let
  tools = import ./tools.nix;
  link =
    chain: i:
    tools.run {
      name = "deep-${toString chain}-${toString i}-${tag}";
      inputs = if i == 0 then [ ] else [ (link chain (i - 1)) ];
      script = "cat /lab/hostname > $out";
    };
in
builtins.genList (chain: link chain (depth - 1)) chains
