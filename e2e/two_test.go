package e2e_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// Two workflow runs of an organisation share a tailnet. They do not so much as notice each
// other, whatever their hosts are called.
func TestTwoClusters(t *testing.T) {
	t.Parallel() // it mostly waits
	lab := startLab(t, testbed.Config{Builders: 4})
	if _, err := lab.Boot(t.Context(), testbed.HostSpec{Name: "coordinator-2"}); err != nil {
		t.Fatal(err)
	}

	// The names of both are the very same: the tailnet numbers those that come second.
	t.Run("of two runs", func(t *testing.T) {
		one, two := newCluster(t, lab, "same", 2), newCluster(t, lab, "same", 0)
		one.Run, two.Run = "1001", "1002"
		two.Coordinator = "coordinator-2"
		two.Builders = []string{"builder-3", "builder-4"}
		two.Names = map[string]string{"builder-3": one.NameOf("builder-1"), "builder-4": one.NameOf("builder-2")}
		apart(t, one, two)
	})

	// A workflow may have two clusters; a name says which of them a builder is for. The
	// names of the second are those that a tailnet could have given the builders of the
	// first.
	t.Run("of one run", func(t *testing.T) {
		one, two := newCluster(t, lab, "left", 2), newCluster(t, lab, "right", 0)
		one.Run, two.Run = "1003", "1003"
		two.Coordinator = "coordinator-2"
		two.Builders = []string{"builder-3", "builder-4"}
		two.Names = map[string]string{
			"builder-3": one.NameOf("builder-1") + "-1",
			"builder-4": one.NameOf("builder-1") + "-2",
		}
		apart(t, one, two)
	})
}

// apart has two clusters live beside each other: each gets its own builders, builds on
// them, and is stopped without the other.
func apart(t *testing.T, one, two *cluster) {
	// The builders first, so that each sees both coordinators and has to choose.
	for _, c := range []*cluster{two, one} {
		for _, host := range c.Builders {
			c.startBuilder(host, nil)
		}
	}
	one.startCoordinator(nil)
	two.startCoordinator(nil)
	one.wantExit(one.step, 0)
	two.wantExit(two.step, 0)

	for _, c := range []*cluster{one, two} {
		now := c.await("ready", func(now apiclient.Cluster) bool { return now.Phase == "ready" })
		var names []string
		for _, host := range c.Builders {
			names = append(names, c.NameOf(host))
			if b, _ := builderOf(now, c.NameOf(host)); b.Address == nil || *b.Address != tailnetAddress(t, c.Host(host)) {
				t.Errorf("%s of %s is not %s but %s", c.NameOf(host), c.Coordinator, host, show(b))
			}
		}
		var listed []string
		for _, b := range now.Builders {
			listed = append(listed, b.Name)
		}
		if diff := cmp.Diff(names, listed); diff != "" {
			t.Errorf("builders of %s (-want +got):\n%s", c.Coordinator, diff)
		}
		wantBuildsOn(t, c, c.Builders)
	}

	one.stop()
	one.wantReleased()
	// Nothing that the other has may have changed, least of all by the stop.
	for _, host := range two.Builders {
		select {
		case <-two.builders[host].Done():
			t.Errorf("%s ended when the other cluster was stopped:\n%s", host, two.builders[host].Output())
		default:
		}
	}
	wantBuildsOn(t, two, two.Builders)
	one.leave()
	wantBuildsOn(t, two, two.Builders)
	two.stop()
	two.wantReleased()
	two.leave()
}

// wantBuildsOn builds, and wants these hosts, all of them, to have built.
func wantBuildsOn(t *testing.T, c *cluster, hosts []string) {
	t.Helper()
	where := c.where(c.build("fan-in.nix", "--arg", "leaves", "4", "--argstr", "seconds", "0.5"))
	if diff := cmp.Diff(hosts, hostsOf(where)); diff != "" {
		t.Errorf("hosts that built for %s (-want +got):\n%s", c.Coordinator, diff)
	}
}

// tailnetAddress is the host's own.
func tailnetAddress(t *testing.T, h *testbed.Host) string {
	t.Helper()
	return output(t, h, testbed.Root, "tailscale", "ip", "-4")
}
