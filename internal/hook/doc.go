// Package hook is the build hook of a cluster: what Nix starts, once for each build that it
// would send away, to be told who builds it. It asks the scheduler (package scheduler) for a
// builder and has Nix' own hook do the rest, as a child that knows of that builder alone. So
// everything about building on it is Nix' own, of the very version that called.
//
//	         no scheduler            other builders wanted, no answer
//	started -------------> is the stock hook      asked ------------> hands all to the stock hook
//	   |                                            ^
//	   `-- settings, "try" --------------------------'-- accept --> waits <-----------.
//	                                                |                |  run         | the builder was lost,
//	                                                |                v              | or was to blame
//	                        decline, postpone <-----'              builds ----------'
//	                                                                 |
//	                                                                 `--> built, failed, timed out
//
// Nix waits for each answer and does nothing else meanwhile, so every answer has a bound: a
// scheduler that gives none within it is done without. What the hook takes from a builder's
// failure is the matter of one function, judge.
//
// A hook has four descriptors from Nix: 0 for settings, the requests and what the build needs;
// 2 for its answers, and then for messages in Nix' JSON; 4 for what ssh and the builder say;
// and 5, the other end of 4, for Nix' own hook to read what ssh said. When 2 or 4 ends, the
// build has ended for Nix, so they are open until the process ends.
package hook
