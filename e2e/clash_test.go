package e2e_test

import (
	"slices"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

const (
	builderTag     = "tag:nix-ci-builder"
	coordinatorTag = "tag:nix-ci-coordinator"
)

// byHand joins a host to the tailnet as a person, or another action, does.
func (r *rig) byHand(host, hostname, tag string) {
	r.t.Helper()
	if err := r.Host(host).JoinTailnet(within(r.t, patience), testbed.Tailnet{Hostname: hostname, Tags: []string{tag}, SSH: true}); err != nil {
		r.t.Fatal(err)
	}
}

// A whole earlier run lingers on the tailnet, its coordinator too. Everybody gets another
// name, finds the others, and the person who looks is told of it.
func TestLingeringRun(t *testing.T) {
	lab := startLab(t, testbed.Config{Builders: 3})
	b1, b2, b3 := testbed.Builder(1), testbed.Builder(2), testbed.Builder(3)
	r := newRig(t, lab, "linger", 1)
	r.byHand(b2, r.NameOf(b1), builderTag)
	r.byHand(b3, "nix-coordinator-linger", coordinatorTag)
	builders := r.ready()
	for _, want := range []string{r.LabelOf(b1) + "-1", "nix-coordinator-linger-1"} {
		if !slices.Contains(r.nodes(), want) {
			t.Errorf("no %s on the tailnet, but %v", want, r.nodes())
		}
	}
	_, status := r.run(testbed.Runner, "nix-builders", "status")
	contains(t, "status", status, r.NameOf(b1)+" is "+r.LabelOf(b1)+"-1 on the tailnet")
	r.stop()
	r.wantExit(builders[b1], 0)
	r.leave()
	if got := r.nodes(); len(got) != 2 {
		t.Errorf("of three nodes that were there, two by hand, are left %v", got)
	}
}

// A host that joined as something else is not made a builder, nor taken off the tailnet.
func TestAnotherTag(t *testing.T) {
	lab := startLab(t, testbed.Config{Builders: 1})
	b1 := testbed.Builder(1)
	r := newRig(t, lab, "tag", 1)
	r.byHand(b1, r.NameOf(b1), coordinatorTag)
	p := r.builder(b1)
	r.wantExit(p, 1)
	r.says(p, "tailscale up --advertise-tags="+builderTag, coordinatorTag)
	if got := r.nodes(); !slices.Equal(got, []string{r.LabelOf(b1)}) {
		t.Errorf("on the tailnet is %v", got)
	}
}
