package e2e_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// One command releases the builders, whatever else happens at the time.
func TestStop(t *testing.T) {
	t.Parallel() // it mostly waits
	lab := startLab(t, testbed.Config{Builders: 3})
	b1, b2, b3 := testbed.Builder(1), testbed.Builder(2), testbed.Builder(3)
	machines := func(c *cluster) string {
		return output(t, c.Host(c.Coordinator), testbed.Root, "sh", "-c", "cat /etc/nix/machines 2>/dev/null || true")
	}

	t.Run("twice, and when nobody is left", func(t *testing.T) {
		c := newCluster(t, lab, "twice", 2)
		c.up()
		first := c.stop()
		contains(t, "the first stop", first, c.NameOf(b1)+" left after", c.NameOf(b2)+" left after", "Released 2 of 2 builders")
		c.wantReleased()
		second := c.stop()
		contains(t, "the second stop", second, "Released 2 of 2 builders")
		if text := machines(c); text != "" {
			t.Errorf("machines after the stop:\n%s", text)
		}
		c.leave()
		if code, printed := c.run(testbed.Runner, "stop-nix-builders"); code == 0 || !strings.Contains(printed, "stop-nix-builders") {
			// The command is gone with the cluster; what is left says that it was not found.
			t.Errorf("stop-nix-builders after leave: code %d:\n%s", code, printed)
		}
		if code, printed := c.run(testbed.Runner, "nix-builders", "stop"); code != 1 || !strings.Contains(printed, "no coordinator runs on this host") {
			t.Errorf("stop after leave: code %d:\n%s", code, printed)
		}
	})

	t.Run("three at once", func(t *testing.T) {
		c := newCluster(t, lab, "atonce", 3)
		c.up()
		var stops sync.WaitGroup
		for range 3 {
			p := c.start(testbed.Runner, "stop-nix-builders")
			stops.Go(func() {
				if code, err := p.Wait(within(t, patience)); code != 0 || err != nil || !strings.Contains(p.Output(), "Released 3 of 3") {
					t.Errorf("code %d, %v:\n%s", code, err, p.Output())
				}
			})
		}
		stops.Wait()
		c.wantReleased()
		c.leave()
	})

	t.Run("while builders arrive", func(t *testing.T) {
		c := newCluster(t, lab, "early", 3)
		c.startBuilder(b1, nil)
		step := c.startCoordinator(nil)
		c.await("one where the first is ready", c.is(map[string]apiclient.BuilderState{b1: "ready", b2: "expected"}))
		contains(t, "the stop", c.nixBuildersStop(0), c.NameOf(b1)+" left after", c.NameOf(b2)+" was not there")
		// The step was waiting for more, in vain.
		c.wantExit(step, 1)
		contains(t, "the step", step.Output(), "the cluster is stop")
		// Who comes late is told to leave, and ends well.
		late := c.startBuilder(b2, nil)
		c.wantExit(late, 0)
		contains(t, "the late builder", late.Output(), "told to leave")
		c.wantReleased()
		c.leave()
	})

	t.Run("one by name", func(t *testing.T) {
		c := newCluster(t, lab, "byname", 3)
		c.up()
		contains(t, "the release", c.stop(c.NameOf(b2)), c.NameOf(b2)+" left after", "Released 1 of 1 builders")
		c.wantExit(c.builders[b2], 0)
		if text := machines(c); strings.Contains(text, c.NameOf(b2)) || !strings.Contains(text, c.NameOf(b1)) || !strings.Contains(text, c.NameOf(b3)) {
			t.Errorf("machines after the release of %s:\n%s", c.NameOf(b2), text)
		}
		if code, printed := c.run(testbed.Runner, "stop-nix-builders", "nobody"); code != 1 || !strings.Contains(printed, "nobody") {
			t.Errorf("release of a stranger: code %d:\n%s", code, printed)
		}
		now := c.await("ready", func(now apiclient.Cluster) bool { return now.Phase == apiclient.PhaseReady })
		if b, _ := builderOf(now, c.NameOf(b1)); b.State != "ready" {
			t.Errorf("after the release the others are: %s", show(now))
		}
		contains(t, "the stop", c.stop(), c.NameOf(b1)+" left after")
		c.wantReleased()
		c.leave()
	})

	t.Run("with one killed and one cut off", func(t *testing.T) {
		c := newCluster(t, lab, "dead", 3)
		c.Env["NIX_BUILDERS_LEASE"] = "6"
		c.up()
		lost := func(now apiclient.Cluster) bool {
			b, _ := builderOf(now, c.NameOf(b1))
			return b.State == "lost"
		}
		if err := lab.Host(b1).Kill(within(t, patience)); err != nil {
			t.Fatal(err)
		}
		c.await("one where the killed builder is lost", lost)
		if text := machines(c); strings.Contains(text, c.NameOf(b1)) {
			t.Errorf("machines with a builder that is lost:\n%s", text)
		}
		// The other falls silent while the stop waits for it: that is a stop that failed.
		if err := lab.Host(b2).Cut(within(t, patience)); err != nil {
			t.Fatal(err)
		}
		printed := c.nixBuildersStop(1)
		contains(t, "the stop", printed, c.NameOf(b1)+" was not there (lost", c.NameOf(b2)+" did NOT leave", c.NameOf(b3)+" left after",
			"did not leave in time", "stopped all the same")
		if text := machines(c); text != "" {
			t.Errorf("machines after the stop:\n%s", text)
		}
		c.wantExit(c.builders[b3], 0)
		// The builder that was cut off has lost its coordinator, and ends by itself.
		c.wantExit(c.builders[b2], 0)
		contains(t, "the builder that was cut off", c.builders[b2].Output(), "silent")
		c.leave()
	})
}

// nixBuildersStop stops with the command that is there before the cluster is ready, and
// returns what it printed.
func (c *cluster) nixBuildersStop(want int) string {
	c.t.Helper()
	code, printed := c.run(testbed.Runner, "nix-builders", "stop", "--wait", "20s")
	if code != want {
		c.t.Fatalf("nix-builders stop ended with code %d, want %d:\n%s", code, want, printed)
	}
	return printed
}
