package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// Machines are suspended and go on as if nothing had been: a laptop's lid, a virtual machine
// that its host has no time for. Time passes for everybody else.
func TestSuspend(t *testing.T) {
	t.Parallel() // it mostly waits
	const lease = 6 * time.Second
	slept, awake := testbed.Builder(1), testbed.Builder(2)

	for _, tt := range []struct {
		name    string
		host    string
		program []string // what of the host is suspended; none: all of it
		leases  float64
		lost    []string // the hosts that are lost by it
	}{
		// Builders wait two leases from when they sent the last poll that was answered: that is
		// up to two thirds of a lease ago.
		{"server", testbed.Coordinator, []string{"nix-builders serve"}, 1.2, nil},
		{"coordinator", testbed.Coordinator, nil, 1.2, nil},
		{"agent", slept, []string{"nix-builders builder"}, 1.5, []string{slept}},
		{"agent-for-long", slept, []string{"nix-builders builder"}, 2.5, []string{slept}},
		{"machine-for-long", slept, nil, 2.5, []string{slept}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			lab := startLab(t, testbed.Config{Builders: 2})
			r := newRig(t, lab, "suspend", 2)
			r.Env["NIX_BUILDERS_LEASE"] = fmt.Sprint(int(lease.Seconds()))
			builders := r.ready()
			h := lab.Host(tt.host)
			t.Cleanup(func() { // before the rig clears its hosts
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				_ = h.Thaw(ctx) // it may be dead
			})
			before := r.now().Event

			if err := h.Freeze(within(t, patience), tt.program...); err != nil {
				t.Fatal(err)
			}
			over := time.After(time.Duration(tt.leases * float64(lease)))
			for _, host := range tt.lost { // the fault bites
				r.awaitState(host, apiclient.BuilderStateLost)
			}
			<-over
			if err := h.Thaw(within(t, patience), tt.program...); err != nil {
				t.Fatal(err)
			}
			thawed := time.Now()
			if len(tt.lost) == 0 { // builders have ended what it had begun, and nothing begins before they hear it
				r.built(r.build("fan-in.nix", "--arg", "leaves", "4"))
			}
			r.await("one where all are ready and were heard since", func(now apiclient.Cluster) bool {
				return !slices.ContainsFunc(now.Builders, func(b apiclient.Builder) bool {
					return b.State != apiclient.BuilderStateReady || *b.SilentSeconds >= time.Since(thawed).Seconds()
				})
			})
			// Whoever was to be lost late would be by now.
			r.await("one a lease later", func(apiclient.Cluster) bool { return time.Since(thawed) > lease+lease/2 })

			events := caller{r.Host(r.Coordinator), r.api()}.listen(t, "-H", fmt.Sprint("Last-Event-ID: ", before))
			p := r.build("fan-in.nix", "--arg", "leaves", "4")
			if diff := cmp.Diff(r.Builders, hostsOf(r.where(p))); diff != "" {
				t.Errorf("hosts that built (-want +got):\n%s", diff)
			}
			r.stop()
			var lost []string
			for _, e := range events.rest(t) {
				if e.To != nil && *e.To == string(apiclient.BuilderStateLost) {
					lost = append(lost, *e.Builder)
				}
			}
			var want []string
			for _, host := range tt.lost {
				want = append(want, r.NameOf(host))
			}
			if diff := cmp.Diff(want, lost); diff != "" {
				t.Errorf("lost (-want +got):\n%s", diff)
			}
			for _, p := range []*fleet.Process{builders[slept], builders[awake]} {
				r.wantExit(p, 0)
				contains(t, p.String(), p.Output(), "told to leave")
			}
			r.leave()
		})
	}
}
