package e2e_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// Everything of the program is killed at once, on every host. Nothing of it runs any more,
// the tailnet forgets its nodes by itself, leave puts the files right, and the same hosts
// can be a cluster again.
func TestKillEverything(t *testing.T) {
	t.Parallel() // it mostly waits
	cfg := testbed.Config{Builders: 2}
	cfg.Control.EphemeralAfter = 2 * time.Second
	lab := startLab(t, cfg)
	r := newRig(t, lab, "killed", 2)
	pristine := r.files(r.Coordinator)
	r.ready()
	if n := len(r.nodes()); n != 3 {
		t.Fatalf("%d nodes on the tailnet, want 3", n)
	}
	for _, h := range lab.Hosts() {
		r.must(h.Name(), "pkill", "-KILL", "-x", "nix-builders|tailscaled")
	}
	eventually(t, "a host without a process of the program", func() bool {
		n := 0
		for _, h := range lab.Hosts() {
			n += len(r.pids(h.Name(), "nix-builders")) + len(r.pids(h.Name(), "tailscaled"))
		}
		return n == 0
	})
	eventually(t, "a tailnet without its nodes", func() bool { return len(r.nodes()) == 0 })
	for _, h := range lab.Hosts() {
		r.must(h.Name(), "nix-builders", "leave")
	}
	if diff := cmp.Diff(pristine, r.files(r.Coordinator)); diff != "" {
		t.Errorf("files after leave (-want +got):\n%s", diff)
	}

	again := newRig(t, lab, "killed-again", 2)
	again.ready()
	wantBuildsOn(t, again.cluster, again.Builders)
	again.stop()
	again.wantReleased()
	again.leave()
}
