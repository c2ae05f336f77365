package e2e_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
)

// Builders say themselves how many builds they take and how fast they are; Nix keeps to it;
// and what each did can be read when they are gone.
func TestOffers(t *testing.T) {
	t.Parallel() // it mostly waits
	lab := startLab(t, testbed.Config{Builders: 3})
	b1, b2, b3 := testbed.Builder(1), testbed.Builder(2), testbed.Builder(3)
	r := newRig(t, lab, "offers", 3)
	own := map[string]*apiclient.Offer{
		b1: {MaxJobs: new(1), SpeedFactor: new(4)},
		b2: {MaxJobs: new(3)},
		b3: {},
	}
	r.startBuilder(b1, pairs([]string{"NIX_BUILDERS_MAX_JOBS=1", "NIX_BUILDERS_SPEED_FACTOR=4"}))
	r.startBuilder(b2, pairs([]string{"NIX_BUILDERS_MAX_JOBS=3", "NIX_BUILDERS_SPEED_FACTOR="}))
	r.startBuilder(b3, nil)
	r.wantExit(r.coordinator("NIX_BUILDERS_MAX_JOBS=2", "NIX_BUILDERS_SPEED_FACTOR=3"), 0)

	want := map[string]string{b1: "1 4", b2: "3 3", b3: "2 3"}
	if diff := cmp.Diff(want, r.machines()); diff != "" {
		t.Errorf("max jobs and speed factor in the machines file (-want +got):\n%s", diff)
	}
	now := r.await("ready", func(c apiclient.Cluster) bool { return c.Phase == apiclient.PhaseReady })
	for host, jobs := range map[string]int{b1: 1, b2: 3, b3: 2} {
		b, _ := builderOf(now, r.NameOf(host))
		if b.MaxJobs == nil || *b.MaxJobs != jobs || b.SpeedFactor == nil {
			t.Errorf("%s as the API has it: %s", host, show(b))
			continue
		}
		said := &apiclient.Offer{MaxJobs: b.Offer.MaxJobs, SpeedFactor: b.Offer.SpeedFactor}
		if diff := cmp.Diff(own[host], said); diff != "" {
			t.Errorf("what %s said (-want +got):\n%s", host, diff)
		}
	}

	const leaves, seconds = 9, 3
	begin := time.Now()
	p := r.build("fan-in.nix", "--argstr", "seconds", "3", "--arg", "leaves", "9")
	r.built(p)
	r.stop() // at once: no minute's vitals ever told of it
	r.wantReleased()
	took := time.Since(begin).Seconds()
	r.kill("KILL", testbed.Coordinator, "serve") // nor is it in the server's memory alone
	now = r.await("there again", func(c apiclient.Cluster) bool { return c.Phase == apiclient.PhaseStopped })
	busy := 0.0
	for host, jobs := range map[string]int{b1: 1, b2: 3, b3: 2} {
		b, _ := builderOf(now, r.NameOf(host))
		v := b.Vitals
		if b.State != apiclient.BuilderStateDeparted || v == nil || v.PeakBuilds == nil || v.BusySeconds == nil {
			t.Errorf("%s after it left: %s", host, show(b))
			continue
		}
		t.Logf("%s: peak %d of %d, busy %.1f s", host, *v.PeakBuilds, jobs, *v.BusySeconds)
		if *v.PeakBuilds < 1 || *v.PeakBuilds > jobs || *v.BusySeconds > took*float64(*v.PeakBuilds) {
			t.Errorf("%s had %d builds at a time, want 1 to %d, and %.1f s of build time in %.1f s", host, *v.PeakBuilds, jobs, *v.BusySeconds, took)
		}
		contains(t, host, r.builders[host].Output(), "of build time seen")
		busy += *v.BusySeconds
	}
	if least := float64(leaves*seconds) / 2; busy < least {
		t.Errorf("%.1f s of build time were seen, want %.1f at least of %d leaves of %d s", busy, least, leaves, seconds)
	}
	r.leave()
}

// machines are max jobs and speed factor in the machines file, by host.
func (r *rig) machines() map[string]string {
	r.t.Helper()
	hosts := map[string]string{}
	for _, host := range r.Builders {
		hosts[strings.ToLower(r.NameOf(host))] = host
	}
	got := map[string]string{}
	for line := range strings.Lines(r.must(r.Coordinator, "cat", "/etc/nix/machines")) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) < 7 {
			r.t.Errorf("a machine has %d fields: %s", len(fields), line)
			continue
		}
		got[hosts[nix.LineName(line)]] = fields[3] + " " + fields[4]
	}
	return got
}
