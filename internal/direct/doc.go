// Package direct carries the Nix daemon's protocol between coordinator and builder straight
// over a connection of the tailnet, which encrypts and says who calls. No ssh is involved.
//
//	coordinator                                      builder
//	Nix, instead of ssh: dial-store ----- TCP -----> [Server] --pipes--> nix-daemon --stdio
//	                        ^  GET /store, upgraded
//	                        `- a connection that the [Pool] keeps ready
//
// The server belongs to the builder's agent. It serves the coordinator that has claimed the
// builder ([Server.Claim]) and nobody else, until it is fenced ([Server.Fence]): then all
// that was begun here ends, for elsewhere it is taken for lost.
//
//	closed --claim--> open --fence--> fenced --claim--> open ...
//
// It also tells what its host went through while builds ran, by which a build that failed
// for want of memory or disk is told from one that fails everywhere.
package direct
