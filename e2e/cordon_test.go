package e2e_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// Builders differ: a cluster may need some of each system, and one whose disk fills up gets
// no new builds until it has room again.
func TestUnevenBuilders(t *testing.T) {
	t.Parallel() // it mostly waits
	const arm, small = "builder-1", "builder-2"
	lab := startLab(t, testbed.Config{
		Builders:  3,
		NixConf:   map[string]string{arm: "extra-platforms = aarch64-linux"},
		StoreSize: map[string]int64{small: 512 << 20},
	})
	r := newRig(t, lab, "uneven", 3)
	r.Env["NIX_BUILDERS_LEASE"] = "6" // vitals go with polls, and those follow the lease
	r.Env["NIX_BUILDERS_MIN_BUILDERS"] = "x86_64-linux: 2, aarch64-linux: 1"

	// Two are ready, and the step goes on waiting for one of the other system.
	r.builder(small)
	r.builder("builder-3")
	step := r.coordinator()
	now := r.await("one where two are ready", r.is(map[string]apiclient.BuilderState{small: "ready", "builder-3": "ready"}))
	if now.Phase != apiclient.PhaseGathering || now.SystemQuorum == nil {
		t.Errorf("two builders of one system make the cluster %s: %s", now.Phase, show(now.SystemQuorum))
	}
	r.builder(arm)
	r.wantExit(step, 0)
	now = r.await("ready", func(c apiclient.Cluster) bool { return c.Phase == apiclient.PhaseReady })
	contains(t, "the cluster", now.Reason, "3 of 3 builders are ready", "aarch64-linux: 1 of 1 needed", "x86_64-linux: 3 of 2 needed")

	machines := func() string { return r.must(r.Coordinator, "cat", "/etc/nix/machines") }
	r.must(small, "fallocate", "-l", "480M", "/nix/full")
	b := r.awaitState(small, apiclient.BuilderStateCordoned)
	contains(t, "the reason", b.Reason, "short of disk", "GiB free in /nix")
	eventually(t, "a machines file without "+small, func() bool { return !strings.Contains(machines(), r.NameOf(small)) })
	code, status := r.run(testbed.Runner, "nix-builders", "status")
	if code != 0 {
		t.Errorf("status: code %d", code)
	}
	contains(t, "the status", status, "cordoned", r.NameOf(small)+" is cordoned: short of disk")
	where := r.where(r.build("fan-in.nix", "--arg", "leaves", "8", "--argstr", "seconds", "0.2"))
	if diff := cmp.Diff([]string{arm, "builder-3"}, hostsOf(where)); diff != "" {
		t.Errorf("hosts that built (-want +got):\n%s", diff)
	}

	r.must(small, "rm", "/nix/full")
	b = r.awaitState(small, apiclient.BuilderStateReady)
	contains(t, "the reason", b.Reason, "has room again")
	eventually(t, "a machines file with "+small, func() bool { return strings.Contains(machines(), r.NameOf(small)) })
	metrics := output(t, r.Host(r.Coordinator), testbed.Runner, "curl", "-fsS", r.api()+"/metrics")
	contains(t, "the metrics", metrics, `nix_builders_builder_transitions_total{state="cordoned"} 1`)
	r.stop()
	r.wantReleased()
	r.leave()
}
