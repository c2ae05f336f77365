package main

import (
	"fmt"
	"io"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// writeMissing tells a person which builders are not ready, since when, and what to
// check. It goes to the log of a step that fails.
func writeMissing(w io.Writer, c apiclient.Cluster, s *settings, now time.Time) {
	fmt.Fprintf(w, "%s Not ready:\n", readyCount(c))
	writeNotReady(w, c, now)
	fmt.Fprintln(w)
	writeChecks(w, c, s)
}

func readyCount(c apiclient.Cluster) string {
	ready := 0
	for _, b := range c.Builders {
		if b.State == "ready" {
			ready++
		}
	}
	return fmt.Sprintf("%d of %d builders are ready, %d are needed.", ready, len(c.Builders), c.Quorum)
}

// writeNotReady lists the builders that are not ready.
func writeNotReady(w io.Writer, c apiclient.Cluster, now time.Time) {
	for _, b := range c.Builders {
		if b.State != "ready" {
			fmt.Fprintf(w, "  %s: %s for %s: %s\n", printable(b.Name), b.State, age(b.Since, now), printable(b.Reason))
		}
	}
}

// writeChecks tells what to check about those builders.
func writeChecks(w io.Writer, c apiclient.Cluster, s *settings) {
	missing := map[apiclient.BuilderState]int{}
	for _, b := range c.Builders {
		missing[b.State]++
	}
	fmt.Fprintln(w, "What to check:")
	advise := func(state apiclient.BuilderState, format string, args ...any) {
		if missing[state] > 0 {
			fmt.Fprintf(w, "- %s: %s\n", state, fmt.Sprintf(format, args...))
		}
	}
	advise("expected", `the builder never called. Did its job start, and under this very name? Does its log show
  that it joined the tailnet, and which coordinators it saw? Does the tailnet's policy let %s
  reach %s on port %d?`, s.Cluster.BuilderTag, s.Cluster.CoordinatorTag, s.Cluster.Port)
	advise("joined", `the builder called, but its Nix store did not answer over SSH; the reason above is SSH's or
  Nix's own. Does the tailnet's policy let %s use SSH to %s as root ("ssh" rules),
  and reach port 22 ("grants")? Is Tailscale SSH on there?`, s.Cluster.CoordinatorTag, s.Cluster.BuilderTag)
	advise("lost", "the builder called and fell silent for longer than the lease (%s). Was its job cancelled, or\n  did its runner run out of memory or disk?", time.Duration(s.Cluster.Lease))
	advise("departed", "the builder left by itself; its job's log says why.")
	advise("rejected", "the builder can't be used; the reason above says why.")
}
