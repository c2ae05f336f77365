// Package nixstore asks a Nix daemon about store paths, over the daemon's own worker protocol.
//
// It says what nix path-info says, without a process for each question. It knows the few
// operations that the cluster needs, of the protocol that every Nix since 2.4 understands,
// and bounds what it reads: a daemon that says nonsense costs a connection and no more.
package nixstore
