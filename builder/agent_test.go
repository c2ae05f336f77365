package builder_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/builder"
	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

const home = "100.64.0.100:8378"

// The ordinary life: the coordinator comes up later than the builder, the builder
// stays for some minutes and is told to leave.
func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTailnet()
		a := n.newAgent("b1", home).start(t)
		time.Sleep(10 * time.Second)
		cluster, _ := newCluster(t, coordinator.Config{Builders: []string{"b1"}})
		n.coordinate(t, home, cluster)
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if got := states(cluster); got != "b1 joined" {
			t.Fatalf("4 s after the coordinator came up: %s", got)
		}
		if cluster.View().Builders[0].Vitals == nil {
			t.Error("the first check-in tells no vitals")
		}
		time.Sleep(3 * time.Minute)
		if v := cluster.View().Builders[0].Vitals; v == nil || v.Builds != 2 {
			t.Errorf("vitals at the coordinator: %+v", v)
		}
		begin := time.Now()
		report := stop(t, cluster)
		_, err := a.wait()
		if err != nil {
			t.Errorf("Run: %v", err)
		}
		if took := time.Since(begin); took > 100*time.Millisecond {
			t.Errorf("it took %v to leave", took)
		}
		if b := report.Builders[0]; !b.Left || b.State != coordinator.Departed {
			t.Errorf("released: %+v", b)
		}
		want := `looking for the coordinator of owner/repo/123/1 as b1, for 5m0s at most
cpu  12%, memory 10.0 GiB free, /nix 50.0 GiB free, 2 builds running
claimed by coordinator-100 at http://100.64.0.100:8378/v1; the cluster is gathering
cpu  12%, memory 10.0 GiB free, /nix 50.0 GiB free, 2 builds running
cpu  12%, memory 10.0 GiB free, /nix 50.0 GiB free, 2 builds running
cpu  12%, memory 10.0 GiB free, /nix 50.0 GiB free, 2 builds running
told to leave: stop requested by the test
left the cluster
`
		if diff := cmp.Diff(want, a.out.String()); diff != "" {
			t.Errorf("what it said (-want +got):\n%s", diff)
		}
	})
}

// A builder that comes when all is over is told so, and ends well.
func TestLate(t *testing.T) {
	t.Run("stopped", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newTailnet()
			cluster, _ := newCluster(t, coordinator.Config{Builders: []string{"b1"}})
			n.coordinate(t, home, cluster)
			stop(t, cluster)
			if _, err := n.newAgent("b1", home).start(t).wait(); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("failed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newTailnet()
			cluster, _ := newCluster(t, coordinator.Config{Builders: []string{"b1", "b2"}, GatherTimeout: time.Minute})
			n.coordinate(t, home, cluster)
			early := n.newAgent("b2", home).start(t)
			if took, err := early.wait(); err != nil || took < time.Minute || took > 61*time.Second {
				t.Errorf("who waited for the cluster: %v after %v", err, took)
			}
			if _, err := n.newAgent("b1", home).start(t).wait(); err != nil {
				t.Errorf("who came too late: %v", err)
			}
		})
	})
}

func TestUnclaimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTailnet()
		addrs := []string{"100.64.0.101:8378", "100.64.0.102:8378", "100.64.0.103:8378"}
		foreign, _ := newCluster(t, coordinator.Config{ID: "owner/repo/999/1", Builders: []string{"b1"}})
		n.coordinate(t, addrs[0], foreign)
		sibling, _ := newCluster(t, coordinator.Config{Builders: []string{"b2"}})
		n.coordinate(t, addrs[1], sibling)

		a := n.newAgent("b1", addrs...).start(t)
		took, err := a.wait()
		unclaimed, ok := errors.AsType[*builder.UnclaimedError](err)
		if !ok {
			t.Fatal(err)
		}
		if took != builder.DefaultTimeout {
			t.Errorf("it took %v", took)
		}
		want := map[string]string{
			"coordinator-101 (http://100.64.0.101:8378/v1)": "it coordinates another cluster, owner/repo/999/1",
			"coordinator-102 (http://100.64.0.102:8378/v1)": "it does not expect a builder named b1",
			"coordinator-103 (http://100.64.0.103:8378/v1)": "read the cluster at http://100.64.0.103:8378/v1: connection refused",
		}
		if diff := cmp.Diff(want, unclaimed.Seen); diff != "" {
			t.Errorf("seen (-want +got):\n%s", diff)
		}
		t.Log(err)
		if states(foreign) != "b1 expected" || states(sibling) != "b2 expected" {
			t.Errorf("others took it: %s; %s", states(foreign), states(sibling))
		}
	})
}

func TestNobodySeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newTailnet().newAgent("b1")
		a.Timeout = 7 * time.Second
		took, err := a.start(t).wait()
		if _, ok := errors.AsType[*builder.UnclaimedError](err); !ok || took != a.Timeout {
			t.Errorf("%v after %v", err, took)
		}
		if !strings.Contains(err.Error(), "no coordinator was seen") || !strings.Contains(err.Error(), "within 7s") {
			t.Error(err)
		}
		asleep := errors.New("tailscaled does not answer")
		a = newTailnet().newAgent("b1")
		a.Coordinators = func(context.Context) ([]builder.Candidate, error) { return nil, asleep }
		if _, err := a.start(t).wait(); !errors.Is(err, asleep) {
			t.Error(err)
		}
	})
}

// Two runs on one tailnet and two clusters of one run: nobody goes astray, though
// the names are the same and everyone asks everyone.
func TestClustersDoNotMix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTailnet()
		setup := []struct{ addr, id, names string }{
			{"100.64.0.101:8378", "owner/repo/1/1", "b1 b2"},
			{"100.64.0.102:8378", "owner/repo/2/1", "b1 b2"},
			{"100.64.0.103:8378", "owner/repo/2/1", "b3"},
		}
		var addrs []string
		var clusters []*coordinator.Cluster
		for _, s := range setup {
			c, _ := newCluster(t, coordinator.Config{ID: s.id, Builders: strings.Fields(s.names)})
			n.coordinate(t, s.addr, c)
			clusters, addrs = append(clusters, c), append(addrs, s.addr)
		}
		agents := map[string]*agent{}
		for _, s := range []struct{ node, cluster, key string }{
			{"b1", "owner/repo/1/1", "1/b1"}, {"b2", "owner/repo/2/1", "2/b2"}, {"b3", "owner/repo/2/1", "2/b3"},
		} {
			a := n.newAgent(s.node, addrs...)
			a.Cluster = s.cluster
			agents[s.key] = a.start(t)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		for i, want := range []string{"b1 joined, b2 expected", "b1 expected, b2 joined", "b3 joined"} {
			if got := states(clusters[i]); got != want {
				t.Errorf("cluster %d: %s, want %s", i, got, want)
			}
		}
		stop(t, clusters[1])
		if _, err := agents["2/b2"].wait(); err != nil {
			t.Error(err)
		}
		if !agents["1/b1"].running() || !agents["2/b3"].running() {
			t.Error("a stop reached another cluster")
		}
	})
}

func TestCancelled(t *testing.T) {
	cancelled := errors.New("SIGTERM")
	t.Run("looking", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := newTailnet().newAgent("b1", home).start(t)
			time.Sleep(90 * time.Second)
			a.cancel(cancelled)
			if took, err := a.wait(); !errors.Is(err, cancelled) || took > 91*time.Second {
				t.Errorf("%v after %v", err, took)
			}
		})
	})
	t.Run("measuring", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newTailnet()
			cluster, _ := newCluster(t, coordinator.Config{Builders: []string{"b1"}})
			n.coordinate(t, home, cluster)
			a := n.newAgent("b1", home)
			a.Offer = func(ctx context.Context) (apiclient.Offer, error) {
				<-ctx.Done()
				return apiclient.Offer{}, context.Cause(ctx)
			}
			a.start(t)
			time.Sleep(time.Second)
			a.cancel(cancelled)
			if took, err := a.wait(); !errors.Is(err, cancelled) || took > 2*time.Second {
				t.Errorf("%v after %v", err, took)
			}
		})
	})
	t.Run("claimed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newTailnet()
			cluster, _ := newCluster(t, coordinator.Config{Builders: []string{"b1"}})
			n.coordinate(t, home, cluster)
			a := n.newAgent("b1", home).start(t)
			time.Sleep(20 * time.Second)
			a.cancel(cancelled)
			took, err := a.wait()
			if !errors.Is(err, cancelled) || took > 21*time.Second {
				t.Errorf("%v after %v", err, took)
			}
			if b := cluster.View().Builders[0]; b.State != coordinator.Departed || !strings.Contains(b.Reason, "SIGTERM") {
				t.Errorf("at the coordinator: %v, %s", b.State, b.Reason)
			}
		})
	})
	t.Run("claimed by one that is gone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newTailnet()
			cluster, _ := newCluster(t, coordinator.Config{Builders: []string{"b1"}})
			n.coordinate(t, home, cluster)
			a := n.newAgent("b1", home).start(t)
			time.Sleep(20 * time.Second)
			heal := n.cut()
			defer heal()
			a.cancel(cancelled)
			if took, err := a.wait(); !errors.Is(err, cancelled) || took > 22*time.Second {
				t.Errorf("%v after %v", err, took)
			}
		})
	})
}

func TestHostThatCannotBuild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTailnet()
		cluster, _ := newCluster(t, coordinator.Config{Builders: []string{"b1"}})
		n.coordinate(t, home, cluster)
		noNix := errors.New("nix is not installed")
		a := n.newAgent("b1", home)
		a.Offer = func(context.Context) (apiclient.Offer, error) { return apiclient.Offer{}, noNix }
		if took, err := a.start(t).wait(); !errors.Is(err, noNix) || took > time.Second {
			t.Errorf("%v after %v", err, took)
		}
		a = n.newAgent("b1") // nor does it wait for a coordinator to tell so
		a.Offer = func(context.Context) (apiclient.Offer, error) { return apiclient.Offer{}, noNix }
		if took, err := a.start(t).wait(); !errors.Is(err, noNix) || took > 2*time.Second {
			t.Errorf("with no coordinator there: %v after %v", err, took)
		}
		a = n.newAgent("b1", home)
		a.Offer = func(context.Context) (apiclient.Offer, error) {
			o := offer()
			o.StoreProgram = "nix-daemon"
			return o, nil
		}
		if took, err := a.start(t).wait(); err == nil || !strings.Contains(err.Error(), "/offer/store_program") || took > time.Second {
			t.Errorf("an offer that the contract does not allow: %v after %v", err, took)
		}
	})
}

// What a host measures wrongly, or not at all, costs it nothing.
func TestOddVitals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTailnet()
		cluster, _ := newCluster(t, coordinator.Config{Builders: []string{"b1"}})
		n.coordinate(t, home, cluster)
		var calls atomic.Int32
		a := n.newAgent("b1", home)
		a.Vitals = func(ctx context.Context) (apiclient.Vitals, error) {
			switch calls.Add(1) {
			case 1:
				return apiclient.Vitals{CpuPercent: math.NaN(), MemoryFreeBytes: -1, StoreFreeBytes: math.MaxInt64, Builds: -3}, nil
			case 2:
				return apiclient.Vitals{}, fmt.Errorf("no /proc")
			case 3:
				<-ctx.Done() // hangs
				return apiclient.Vitals{}, context.Cause(ctx)
			}
			return apiclient.Vitals{CpuPercent: 250, Builds: 1}, nil
		}
		a.start(t)
		time.Sleep(30 * time.Second)
		if v := cluster.View().Builders[0].Vitals; v == nil || v.CPUPercent != 0 || v.MemoryFreeBytes != 0 {
			t.Errorf("vitals: %+v", v)
		}
		time.Sleep(4 * time.Minute)
		if v := cluster.View().Builders[0].Vitals; v == nil || v.CPUPercent != 100 || v.Builds != 1 {
			t.Errorf("vitals: %+v", v)
		}
		if got := states(cluster); got != "b1 joined" {
			t.Error(got)
		}
		if !strings.Contains(a.out.String(), "1 build running") {
			t.Error(a.out.String())
		}
	})
}

func TestNew(t *testing.T) {
	good := newTailnet().newAgent("b1").Config
	if _, err := builder.New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*builder.Config){
		"cluster":      func(c *builder.Config) { c.Cluster = "" },
		"name":         func(c *builder.Config) { c.Name = "" },
		"coordinators": func(c *builder.Config) { c.Coordinators = nil },
		"transport":    func(c *builder.Config) { c.Transport = nil },
		"offer":        func(c *builder.Config) { c.Offer = nil },
		"vitals":       func(c *builder.Config) { c.Vitals = nil },
		"timeout":      func(c *builder.Config) { c.Timeout = -1 },
	} {
		bad := good
		change(&bad)
		if _, err := builder.New(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
