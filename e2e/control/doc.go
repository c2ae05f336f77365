// Package control is a small Tailscale control server for tests: a whole
// tailnet without an account and without the Internet.
//
// It exists because the parts of the real service that this project leans on
// are exactly the ones that the control server of Tailscale's own tests leaves
// out: hostnames are sanitised and made unique, an auth key decides the tags of
// its nodes, ephemeral nodes disappear, the policy denies by default, and a
// grant can carry an application capability. The policy is written in the
// language of the real policy file ([ParsePolicy]), so that the file the
// documentation tells people to paste is the file the tests run.
//
// Beside the control server stand the few calls of Tailscale's API that make auth
// keys out of an OAuth client's secret or a job's identity token ([Credential]),
// and an issuer of such tokens that looks to a job like GitHub's ([OIDCRequestURL]).
//
// A [Server] is used in two ways:
//
//   - in the process of a test, on loopback and without root, where
//     [Server.Node] starts userspace nodes;
//   - as a process of its own in a lab, where the nodes are real tailscaled
//     processes and the test talks to it through [Client].
//
// # Life of a node
//
//	register --> known --map poll opens--> online
//	                ^                        |
//	                |                  map poll ends
//	                +--map poll opens--- offline --EphemeralAfter--> removed
//	                                                (ephemeral only)
//
// A logout removes an ephemeral node at once and expires the key of any other.
//
// The wire protocol (Noise over HTTP, then JSON over HTTP/2) is Tailscale's
// own, from tailscale.com/control; only the decisions are made here. It is not
// meant to be safe: it trusts whoever reaches it with a known key.
package control
