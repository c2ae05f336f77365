package builder_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/builder"
	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
)

// doors notes when an agent lets builds in and when it does not.
type doors struct {
	mu    sync.Mutex
	begin time.Time
	notes []string
}

// watch has the agent note when its doors open and close, in seconds.
func watch(a *agent) *doors {
	d := &doors{begin: time.Now()}
	note := func(format string, args ...any) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.notes = append(d.notes, fmt.Sprintf("%.0f s: ", time.Since(d.begin).Seconds())+fmt.Sprintf(format, args...))
	}
	a.Serve = func(c builder.Candidate, _ string) { note("open to %s", c.Name) }
	a.Fence = func(reason string) { note("closed, %s", reason) }
	return d
}

func (d *doors) all() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.notes
}

const left = "it has left its cluster"

func TestBuildsMayRunWhileTheCoordinatorIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTailnet()
		cluster, _ := newCluster(t, coordinator.Config{Builders: []string{"b1"}})
		n.coordinate(t, home, cluster)
		a := n.newAgent("b1", home)
		d := watch(a)
		a.start(t)
		time.Sleep(5 * time.Minute)
		stop(t, cluster)
		a.wait()
		if diff := cmp.Diff([]string{"0 s: open to coordinator-100", "300 s: closed, " + left}, d.all()); diff != "" {
			t.Errorf("the doors (-want +got):\n%s", diff)
		}
	})
}

// A lease after what was acknowledged last they close, though it stays for another; they
// open when the coordinator is heard again. The coordinator never has the builder for there
// while builds may not run.
func TestBuildsEndWithTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTailnet()
		cluster, _ := newCluster(t, coordinator.Config{Builders: []string{"b1"}})
		n.coordinate(t, home, cluster)
		a := n.newAgent("b1", home)
		counted := &acks{RoundTripper: a.Transport}
		a.Transport = counted
		d := watch(a)
		a.start(t)
		time.Sleep(31 * time.Second)
		synctest.Wait()
		last := counted.last
		heal := n.cut()
		time.Sleep(time.Until(last.Add(lease - time.Millisecond)))
		if got := d.all(); len(got) != 1 {
			t.Errorf("before the lease was over: %q", got)
		}
		time.Sleep(2 * time.Millisecond)
		if got := d.all(); len(got) != 2 || !strings.HasSuffix(got[1], "closed, its coordinator was not heard for 45s") {
			t.Errorf("when it was: %q", got)
		}
		time.Sleep(time.Until(last.Add(lease + lease/2)))
		synctest.Wait()
		if got := states(cluster); got != "b1 lost" || !a.running() {
			t.Errorf("half a lease later: %s, it runs: %t", got, a.running())
		}
		heal()
		time.Sleep(15 * time.Second)
		if got := d.all(); len(got) != 3 || !strings.HasSuffix(got[2], "open to coordinator-100") || states(cluster) != "b1 joined" {
			t.Errorf("when it was heard again: %q, %s", got, states(cluster))
		}
		for _, want := range []string{"the coordinator was not heard for 45s: ending what it has begun here\n", "the coordinator is heard again\n"} {
			if n := strings.Count(a.out.String(), want); n != 1 {
				t.Errorf("it said %d times %q", n, want)
			}
		}
		n.cut()
		a.wait()
		if got := d.all(); len(got) != 4 {
			t.Errorf("when it left after silence: %q", got)
		}
	})
}

// Whichever way it leaves, nothing goes on here.
func TestBuildsEndWithTheAgent(t *testing.T) {
	for name, leave := range map[string]func(*testing.T, *tailnet, *agent){
		"cancelled": func(_ *testing.T, _ *tailnet, a *agent) { a.cancel(errors.New("SIGTERM")) },
		"replaced":  func(t *testing.T, n *tailnet, _ *agent) { n.newAgent("b1", home).start(t) },
		"cancelled and silent": func(_ *testing.T, n *tailnet, a *agent) {
			n.cut()
			a.cancel(errors.New("SIGTERM"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newTailnet()
				cluster, _ := newCluster(t, coordinator.Config{Builders: []string{"b1"}})
				n.coordinate(t, home, cluster)
				a := n.newAgent("b1", home)
				d := watch(a)
				a.start(t)
				time.Sleep(20 * time.Second)
				leave(t, n, a)
				a.wait()
				got := d.all()
				if len(got) != 2 || !strings.HasSuffix(got[1], "closed, "+left) {
					t.Errorf("the doors: %q", got)
				}
				time.Sleep(5 * time.Minute)
				if len(d.all()) != 2 {
					t.Errorf("after its end: %q", d.all())
				}
			})
		})
	}
}

// Who was never claimed never opened.
func TestBuildsOfNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newTailnet().newAgent("b1", home)
		d := watch(a)
		a.start(t).wait()
		if got := d.all(); len(got) != 0 {
			t.Errorf("the doors: %q", got)
		}
	})
}

// The coordinator is somewhere else: the doors are open to it there.
func TestDoorsFollowTheCoordinator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const elsewhere = "100.64.0.101:8378"
		n := newTailnet()
		cluster, _ := newCluster(t, coordinator.Config{Builders: []string{"b1"}})
		leave := n.coordinate(t, home, cluster)
		a := n.newAgent("b1", home, elsewhere)
		d := watch(a)
		a.start(t)
		time.Sleep(5 * time.Second)
		leave()
		n.coordinate(t, elsewhere, cluster)
		time.Sleep(30 * time.Second)
		if got := d.all(); len(got) != 2 || !strings.HasSuffix(got[1], "open to coordinator-101") {
			t.Errorf("the doors: %q", got)
		}
		stop(t, cluster)
		a.wait()
	})
}
