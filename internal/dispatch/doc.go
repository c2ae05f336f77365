// Package dispatch keeps the coordinator's Nix true to its cluster: which builders root's
// ssh can reach, and which of them Nix may send builds to.
//
// It is level-triggered. Whatever woke it, it looks at the cluster as it is by then and
// makes the host agree; a change that it slept through costs nothing. Each builder that is
// there has a member here, with one goroutine that finds out whether its store answers:
//
//	resolving --(the tailnet tells address and host keys)--> reachable
//	reachable --(ssh_config has it, its store answered)----> checked
//	checked ----(the machines file has it)-----------------> verified: the cluster's "ready"
//	any of them --(lost, departed, released, replaced)-----> gone, and out of the files
//
// A builder that is cordoned or drained goes out of the machines file and stays in the
// others. What Nix has sent to one that is gone is ended (gone.go), and ssh gives up on it
// at once.
//
// A check that fails is noted with the builder and tried again, ever more slowly. A
// builder counts as ready only when Nix can use it, so who waits for the quorum may start
// builds at once.
//
// Five files hold what the host is told, each with one marked block (package textfile):
// known_hosts, root's ssh_config, the hosts file, the machines file and nix.conf. One
// goroutine writes them, in an order in which the machines file never names a builder that
// ssh does not know. Only nix.conf needs the daemon restarted: once when its block comes,
// once when it goes.
//
// At the end [Dispatcher.Close] takes the machines out and forbids every later write, and
// [Dispatcher.Restore] takes the other blocks out.
package dispatch
