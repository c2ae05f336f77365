// Command benchnix measures builds: the same derivations on the same hosts, built in
// several [way]s, by turns. One of them is what the program sets up; the others are Nix's
// own remote builds over Tailscale SSH, as their users have them.
//
//	go run ./e2e/benchnix                            all of it, on both versions of Nix
//	go run ./e2e/benchnix -suite trixie -only copy   one benchmark, on one
//	go run ./e2e/benchnix -update docs/benchmarks.md and put the tables into the document
//
// # Life
//
// Each suite, which is a version of Nix, has a lab of its own: a coordinator and four
// builders. Each [benchmark] gathers a cluster on it with the real program, measures, and
// lets the cluster go again; those in which a builder dies do so for each single build.
// Nothing of a lab is left, whatever happens, and no wait is without a bound.
//
// What is measured stands in [comparison]s: one a row, one cell a way. A build that fails,
// or that does not end, is a result like another.
//
// The program plays a part on the hosts too: see blast.go.
package main
