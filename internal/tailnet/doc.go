// Package tailnet is this program's door to the tailnet: who this node is, who
// its peers are, who calls, how to reach a peer and where to listen, and how to
// become a member and stop being one.
//
// It is thin over Tailscale's LocalAPI, which answers for whichever tailscaled
// runs on the host. Identity comes from here and from nowhere else: a caller is
// who [Client.WhoIs] says, by its stable node id.
//
// # Life of a membership
//
//	            +-- running and logged in --------------------> member (nothing of it is ours)
//	[Join] -----+-- running, logged out -----> tailscale up --> member (the login is ours)
//	            +-- none: start tailscaled --> tailscale up --> member (login and daemon are ours)
//
//	member -- [Membership.Leave] --> what was ours is undone: log out, end the daemon
//
// What `tailscale up` logs in with is an auth key, the secret of an OAuth client, with which
// it makes an auth key, or the id of a federated identity and the job's identity token, with
// which it gets an access token and makes an auth key ([ParseKey], [ParseClientID]). It is
// handed over through a descriptor.
//
// A [Membership] is plain data, so that the process that leaves may be another
// one than the process that joined.
//
// # Two kinds of networking
//
// With a TUN device the host has a tailnet address like any other: listeners
// bind it and plain dialling works. In userspace networking nothing of the host
// has that address: tailscaled forwards what arrives to 127.0.0.1, and dials on
// our behalf. [Client.Listen], [Client.Dial] and [Client.Transport] hide the
// difference.
package tailnet
