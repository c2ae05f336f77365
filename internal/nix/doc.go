// Package nix is the project's knowledge of Nix: what a host's Nix can build ([Programs.Gather],
// [Builds]), how the coordinator's Nix is told of a builder ([Machine], [Conf]) and made to
// listen ([Daemon.Restart]), whether a builder's store really answers ([Programs.CheckStore]),
// which builds are at builders now ([Links]), and what others have in their machines files
// ([ParseMachines]).
//
// Nix's daemon runs as root and does the dispatch, so everything here sees what root sees:
// programs get root's home and none of the caller's settings (NIX_CONFIG, NIX_SSHOPTS, an
// SSH agent), and CheckStore opens the store with the same URI, the same pinned host key
// and the same ssh_config that a build will use.
package nix
