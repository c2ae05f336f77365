// Package feed lets the builders of a cluster take store paths from each other, so that what
// several of them need does not leave the coordinator several times.
//
//	coordinator                          builder
//	  Index: who has what  --Page-->  Follower: what there is, and where
//	  (learns of each build                |                    |
//	   that ended well)                  Proxy  <- nix-daemon   Server -> other builders'
//	                                       |       substitutes    proxies
//	                                       `--> other builders' Servers
//
// The index has what the coordinator's own store says of a path, signed with a key that lives
// as long as the run. A builder's Nix checks that signature and the hash of what it gets: it
// believes its peers no more than any other cache. What a peer does not give, or not in time,
// the coordinator copies, as it would without all this.
package feed
