package builder_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// host is a host whose builds a test begins and ends.
type host struct {
	builds atomic.Int64
	broken atomic.Bool
	looks  atomic.Int64
	cost   atomic.Int64 // nanoseconds that a look takes
	quick  int64        // every so many-th takes none
}

func (h *host) count(ctx context.Context) (int, error) {
	if n := h.looks.Add(1); h.quick == 0 || n%h.quick != 0 {
		time.Sleep(time.Duration(h.cost.Load()))
	}
	if h.broken.Load() {
		return 0, errors.New("no /proc")
	}
	return int(h.builds.Load()), nil
}

// claimed starts an agent on the host and returns when its coordinator has it, in the
// middle of a second.
func (h *host) claimed(t *testing.T, n *tailnet, cfg coordinator.Config) (*agent, *coordinator.Cluster) {
	t.Helper()
	cfg.Builders = []string{"b1"}
	cluster, _ := newCluster(t, cfg)
	n.coordinate(t, home, cluster)
	a := n.newAgent("b1", home)
	a.Builds = h.count
	a.Vitals = func(context.Context) (apiclient.Vitals, error) {
		return apiclient.Vitals{MemoryFreeBytes: 8 << 30, Builds: int(h.builds.Load())}, nil
	}
	a.start(t)
	time.Sleep(500 * time.Millisecond)
	synctest.Wait()
	if got := states(cluster); got != "b1 joined" {
		t.Fatalf("after half a second: %s", got)
	}
	return a, cluster
}

// wantWork fails the test unless the coordinator knows of this peak and these seconds.
func wantWork(t *testing.T, c *coordinator.Cluster, peak int, busy float64) {
	t.Helper()
	v := c.View().Builders[0].Vitals
	if v == nil || v.PeakBuilds == nil || v.BusySeconds == nil {
		t.Fatalf("vitals at the coordinator: %+v, want them to tell of builds", v)
	}
	if *v.PeakBuilds != peak || *v.BusySeconds != busy {
		t.Errorf("peak %d, busy %v s; want %d and %v s", *v.PeakBuilds, *v.BusySeconds, peak, busy)
	}
}

// A builder that is released after ten seconds of work tells of them, though no minute's
// vitals ever did.
func TestShortWorkIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h host
		a, cluster := h.claimed(t, newTailnet(), coordinator.Config{})
		if v := cluster.View().Builders[0].Vitals; v.PeakBuilds != nil || v.BusySeconds != nil {
			t.Errorf("the first check-in tells what was not looked at: %+v", v)
		}
		h.builds.Store(3)
		time.Sleep(4 * time.Second)
		h.builds.Store(1)
		time.Sleep(6 * time.Second)
		h.builds.Store(0)
		time.Sleep(2 * time.Second)
		begin := time.Now()
		stop(t, cluster)
		if _, err := a.wait(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if took := time.Since(begin); took > 100*time.Millisecond {
			t.Errorf("it took %v to leave", took)
		}
		wantWork(t, cluster, 3, 18)
		if v := cluster.View().Builders[0].Vitals; v.Builds != 0 || v.MemoryFreeBytes == 0 {
			t.Errorf("vitals at the end: %+v", v)
		}
		if want := "at most 3 builds at a time, 18s of build time seen\n"; !strings.Contains(a.out.String(), want) {
			t.Errorf("it said %q, want %q", a.out.String(), want)
		}
	})
}

// wantWorkAbout is wantWork for what was told by vitals: up to a second of builds before
// they were measured may be missing.
func wantWorkAbout(t *testing.T, c *coordinator.Cluster, peak int, busy float64) {
	t.Helper()
	v := c.View().Builders[0].Vitals
	if v == nil || v.PeakBuilds == nil || v.BusySeconds == nil {
		t.Fatalf("vitals at the coordinator: %+v, want them to tell of builds", v)
	}
	if *v.PeakBuilds != peak || *v.BusySeconds > busy || *v.BusySeconds < busy-float64(peak) {
		t.Errorf("peak %d, busy %v s; want %d and about %v s", *v.PeakBuilds, *v.BusySeconds, peak, busy)
	}
}

// Vitals tell of it too: that is what stays of a builder that dies.
func TestWorkOfALostBuilderStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h host
		h.builds.Store(2)
		n := newTailnet()
		a, cluster := h.claimed(t, n, coordinator.Config{})
		time.Sleep(75 * time.Second) // a poll has to end before it is told
		synctest.Wait()
		wantWorkAbout(t, cluster, 2, 70*2)
		h.builds.Store(4)
		time.Sleep(60 * time.Second)
		synctest.Wait()
		const told = 75*2 + 3 + 54*4 // in the second of the change, 3
		wantWorkAbout(t, cluster, 4, told)
		heal := n.cut()
		time.Sleep(46 * time.Second)
		synctest.Wait()
		if got := states(cluster); got != "b1 lost" {
			t.Fatalf("after a lease of silence: %s", got)
		}
		wantWorkAbout(t, cluster, 4, told)
		heal()
		time.Sleep(25 * time.Second)
		synctest.Wait()
		if got := states(cluster); got != "b1 joined" {
			t.Fatalf("after it was heard again: %s", got)
		}
		wantWorkAbout(t, cluster, 4, told+60*4)
		a.cancel(errors.New("the test is over"))
		a.wait()
		wantWork(t, cluster, 4, told+76*4) // to the last whole second
	})
}

// What nobody could look at is not counted, on either side of it.
func TestWorkThatWasNotSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h host
		h.builds.Store(1)
		a, cluster := h.claimed(t, newTailnet(), coordinator.Config{})
		time.Sleep(9 * time.Second) // looked at 0 to 9 s
		h.broken.Store(true)
		time.Sleep(5 * time.Second) // fails at 10 s, and is tried again at 25 s
		h.broken.Store(false)
		time.Sleep(15 * time.Second) // looked at 25 to 29 s
		stop(t, cluster)
		a.wait()
		wantWork(t, cluster, 1, 13)
	})
}

// A host that is busy with builds makes looks wait, and they are no fewer for it.
func TestBusyHostsAreLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h host
		h.cost.Store(int64(100 * time.Millisecond))
		h.quick = 3
		h.claimed(t, newTailnet(), coordinator.Config{GatherTimeout: time.Hour})
		time.Sleep(5 * time.Minute)
		if got := h.looks.Load(); got < 250 {
			t.Errorf("%d looks in five minutes, want about one a second", got)
		}
	})
}

// A host on which looking is expensive is looked at more seldom.
func TestDearLooksAreFew(t *testing.T) {
	for _, test := range []struct {
		cost      time.Duration
		inMinutes int64 // looks in ten minutes
	}{
		{time.Millisecond, 600},
		{10 * time.Millisecond, 123}, // the first looks are made each second
		{100 * time.Millisecond, 43},
	} {
		synctest.Test(t, func(t *testing.T) {
			var h host
			h.cost.Store(int64(test.cost))
			h.claimed(t, newTailnet(), coordinator.Config{GatherTimeout: time.Hour})
			time.Sleep(10*time.Minute - 600*time.Millisecond)
			synctest.Wait()
			if got := h.looks.Load(); got < test.inMinutes*99/100-1 || got > test.inMinutes*101/100+1 {
				t.Errorf("looks that take %v: %d in ten minutes, want %d", test.cost, got, test.inMinutes)
			}
		})
	}
}
