package e2e_test

import (
	"strings"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// Builders that don't come cost a bounded wait, and the step says which and why.
func TestGather(t *testing.T) {
	t.Parallel() // it mostly waits
	lab := startLab(t, testbed.Config{Builders: 2})
	b1, b2 := testbed.Builder(1), testbed.Builder(2)

	t.Run("one is missing", func(t *testing.T) {
		c := newCluster(t, lab, "missing", 2)
		c.Env["NIX_BUILDERS_GATHER_TIMEOUT"] = "8"
		came := c.startBuilder(b1, nil)
		step := c.startCoordinator(nil)
		c.wantExit(step, 1)
		contains(t, "the step", step.Output(),
			"1 of 2 builders are ready, 2 are needed",
			c.NameOf(b2)+": expected for", "never checked in",
			"What to check", "tag:nix-ci-coordinator on port 8378",
			"The builders that came were released")
		// It was claimed; that the run failed is not its failure.
		c.wantExit(came, 0)
		contains(t, "the builder that came", came.Output(), "told to leave")
		// And so is one that comes when all is over.
		late := c.startBuilder(b2, nil)
		c.wantExit(late, 0)
		c.leave()
	})

	t.Run("nobody claims a builder", func(t *testing.T) {
		c := newCluster(t, lab, "unclaimed", 1)
		alone := c.startBuilder(b1, map[string]string{"NIX_BUILDERS_BUILDER_TIMEOUT": "3"})
		c.wantExit(alone, 1)
		contains(t, "the builder", alone.Output(), "nobody claimed builder "+c.NameOf(b1), "no coordinator was seen on the tailnet")

		// A coordinator of another run is seen, and passed over.
		other := newCluster(t, lab, "other", 1)
		other.Builders = []string{b2}
		other.startBuilder(b2, nil)
		other.startCoordinator(nil)
		other.wantExit(other.step, 0)
		alone = c.startBuilder(b1, map[string]string{"NIX_BUILDERS_BUILDER_TIMEOUT": "3"})
		c.wantExit(alone, 1)
		contains(t, "the builder", alone.Output(), "it coordinates another cluster, "+other.Cluster())
		other.stop()
		other.wantReleased()
		other.leave()
	})

	t.Run("enough is enough", func(t *testing.T) {
		c := newCluster(t, lab, "enough", 2)
		c.Env["NIX_BUILDERS_MIN_BUILDERS"] = "1"
		c.startBuilder(b1, nil)
		c.startCoordinator(nil)
		c.wantExit(c.step, 0)
		c.startBuilder(b2, nil)
		c.await("one where the late builder is ready", c.is(map[string]apiclient.BuilderState{b1: "ready", b2: "ready"}))
		if text := output(t, c.Host(c.Coordinator), testbed.Root, "cat", "/etc/nix/machines"); !strings.Contains(text, c.NameOf(b2)) {
			t.Errorf("machines without the late builder:\n%s", text)
		}
		c.stop()
		c.wantReleased()
		c.leave()
	})

	t.Run("the policy forbids SSH", func(t *testing.T) {
		policy, err := lab.Control().Policy(within(t, patience))
		if err != nil {
			t.Fatal(err)
		}
		closed := policy
		closed.SSH = nil
		if err := lab.Control().SetPolicy(within(t, patience), closed); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := lab.Control().SetPolicy(within(t, patience), policy); err != nil {
				t.Error(err)
			}
		}()
		c := newCluster(t, lab, "nossh", 1)
		c.Env["NIX_BUILDERS_TRANSPORT"] = "ssh"
		c.Env["NIX_BUILDERS_GATHER_TIMEOUT"] = "10"
		c.startBuilder(b1, nil)
		step := c.startCoordinator(nil)
		c.wantExit(step, 1)
		contains(t, "the step", step.Output(), c.NameOf(b1)+": joined for", `"ssh" rules`)
		t.Logf("what a person reads:\n%s", step.Output())
		c.wantReleased()
		c.leave()
	})
}
