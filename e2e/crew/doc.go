// Command crew is many builders on one host: the builder's own agents (package builder),
// each with a node of its own on the lab's tailnet and a network stack to it. It is for
// clusters that are larger than a machine can carry hosts.
//
//	crew -login-server URL -cluster ID -name FORMAT -from 1 -to 128
//
// FORMAT is a builder's name with %d for its number. All nodes are brought up, a few at a
// time, before the first agent begins to look for its coordinator. What happens is a JSON
// object a line: see line. Stores there are none, so no builder gets ready.
package main
