package e2e_test

import (
	"strings"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// A stop may let builds end first, or cut them off and say so. Nix is never left to wait for
// a builder that was let go.
func TestDrain(t *testing.T) {
	t.Parallel() // it mostly waits
	lab := startLab(t, testbed.Config{Builders: 2})
	b1, b2 := testbed.Builder(1), testbed.Builder(2)

	// leaf starts a build of one leaf and what needs it, which Nix may build here, and returns
	// when the leaf is being built on a builder.
	leaf := func(r *rig, seconds string) *fleet.Process {
		r.t.Helper()
		p := r.buildAnywhere("fan-in.nix", "--arg", "leaves", "1", "--argstr", "seconds", seconds)
		r.started = append(r.started, p)
		eventually(r.t, "a leaf that is built on a builder", func() bool {
			return r.building(b1)+r.building(b2) == 1
		})
		return p
	}
	draining := func(r *rig) {
		r.t.Helper()
		r.await("one that is being drained", func(c apiclient.Cluster) bool {
			n := 0
			for _, b := range c.Builders {
				if b.State == apiclient.BuilderStateDraining && strings.Contains(b.Reason, "builds that still run: 1") {
					n++
				}
			}
			return n == 1
		})
	}

	t.Run("builds may end", func(t *testing.T) {
		r := newRig(t, lab, "drain", 2)
		r.ready()
		build := leaf(r, "8")
		stop := r.start(testbed.Runner, "stop-nix-builders", "--drain=60s")
		draining(r)
		// Who has nothing to do does not wait for who has.
		r.await("one that the idle builder has left", func(c apiclient.Cluster) bool {
			one, _ := builderOf(c, r.NameOf(b1))
			two, _ := builderOf(c, r.NameOf(b2))
			return one.State == "departed" && two.State == "draining" || one.State == "draining" && two.State == "departed"
		})
		if text := r.must(r.Coordinator, "sh", "-c", "cat /etc/nix/machines || true"); strings.Contains(text, "ssh-ng") {
			t.Errorf("machines while all are drained:\n%s", text)
		}
		where := r.where(build)
		if host := where["leaf 0"]; host != b1 && host != b2 {
			t.Errorf("the leaf was built on %q", host)
		}
		r.wantExit(stop, 0)
		r.says(stop, "Letting builds that run on the builders end, for 60 s at most.", "Released 2 of 2 builders", "No build was cut off.")
		r.wantReleased()
		r.leave()
	})

	t.Run("the server dies meanwhile", func(t *testing.T) {
		r := newRig(t, lab, "drain-again", 2)
		r.ready()
		build := leaf(r, "8")
		stop := r.start(testbed.Runner, "stop-nix-builders", "--drain=60s")
		draining(r)
		r.kill("KILL", r.Coordinator, "serve")
		r.where(build)
		r.wantExit(stop, 0)
		r.says(stop, "Released 2 of 2 builders", "No build was cut off.")
		r.wantReleased()
		r.leave()
	})

	t.Run("not for ever", func(t *testing.T) {
		r := newRig(t, lab, "drain-long", 2)
		r.ready()
		build := leaf(r, "1000")
		stop := r.start(testbed.Runner, "stop-nix-builders", "--drain=3")
		r.wantExit(stop, 0)
		r.says(stop, "1 build was cut off.")
		r.endsInError(build)
		r.leave()
	})

	t.Run("a plain stop cuts off", func(t *testing.T) {
		r := newRig(t, lab, "cut", 2)
		r.ready()
		build := leaf(r, "1000")
		begin := time.Now()
		contains(t, "the stop", r.stop(), "1 build was cut off.", "(builds cut off: 1)")
		r.endsInError(build)
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("Nix took %v to see that its builder was let go", took)
		}
		contains(t, "the second stop", r.stop(), "1 build was cut off.")
		r.wantReleased()
		r.leave()
	})
}

// endsInError wants nix build to end with an error soon.
func (r *rig) endsInError(p *fleet.Process) {
	r.t.Helper()
	if code := r.exit(p); code == 0 {
		r.t.Errorf("%s was cut off, and ended well:\n%s", p, p.Output())
	}
}
