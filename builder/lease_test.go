package builder_test

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/builder"
	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/journal"
)

const lease = coordinator.DefaultLease

// acks notes when requests were sent that the coordinator acknowledged.
type acks struct {
	http.RoundTripper
	over atomic.Bool // the coordinator has gone
	last time.Time
}

func (a *acks) RoundTrip(r *http.Request) (*http.Response, error) {
	sent := time.Now()
	res, err := a.RoundTripper.RoundTrip(r)
	if err == nil && !a.over.Load() && res.StatusCode < 300 && !strings.HasSuffix(r.URL.Path, "/cluster") {
		a.last = sent
	}
	return res, err
}

// A coordinator that is gone, whichever way, is given two leases from the sending
// of what it acknowledged last, to the second.
func TestSilence(t *testing.T) {
	for _, how := range []string{"refused", "black hole", "errors", "slow"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newTailnet()
				cluster, _ := newCluster(t, coordinator.Config{Builders: []string{"b1"}})
				leave := n.coordinate(t, home, cluster)
				a := n.newAgent("b1", home)
				counted := &acks{RoundTripper: a.Transport}
				a.Transport = counted
				a.start(t)
				time.Sleep(7 * time.Second)
				heal := func() {}
				if how == "black hole" {
					heal = n.cut()
				} else {
					leave() // to its end it acknowledges
				}
				counted.over.Store(true)
				switch how {
				case "errors":
					n.handle(t, home, func(w http.ResponseWriter, r *http.Request) { http.Error(w, "", http.StatusBadGateway) })
				case "slow":
					n.handle(t, home, func(w http.ResponseWriter, r *http.Request) {
						w.WriteHeader(http.StatusOK)
						for r.Context().Err() == nil {
							fmt.Fprint(w, " ")
							http.NewResponseController(w).Flush()
							select {
							case <-time.After(time.Second):
							case <-r.Context().Done():
							}
						}
					})
				}
				_, err := a.wait()
				if err != nil {
					t.Error(err)
				}
				silent := time.Since(counted.last)
				if silent < 2*lease || silent > 2*lease+1500*time.Millisecond { // the good-bye takes 1 s
					t.Errorf("gave the coordinator %v", silent)
				}
				if !strings.Contains(a.out.String(), "the coordinator is silent since 1m30s: leaving") {
					t.Error(a.out.String())
				}
				heal()
			})
		})
	}
}

// A partition shorter than the lease, whenever it comes, loses nobody.
func TestPartition(t *testing.T) {
	for _, at := range []time.Duration{20 * time.Second, 29900 * time.Millisecond, 58 * time.Second, 61 * time.Second} {
		t.Run(at.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newTailnet()
				cluster, _ := newCluster(t, coordinator.Config{Builders: []string{"b1", "b2"}})
				n.coordinate(t, home, cluster)
				var agents []*agent
				for _, b := range []string{"b1", "b2"} {
					agents = append(agents, n.newAgent(b, home).start(t))
				}
				time.Sleep(at)
				heal := n.cut()
				time.Sleep(20 * time.Second)
				heal()
				for range 120 {
					time.Sleep(time.Second)
					if got := states(cluster); got != "b1 joined, b2 joined" {
						t.Fatal(got)
					}
				}
				stop(t, cluster)
				for _, a := range agents {
					if _, err := a.wait(); err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}

// A builder that was lost comes back under its id.
func TestLostAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTailnet()
		cluster, _ := newCluster(t, coordinator.Config{Builders: []string{"b1"}})
		n.coordinate(t, home, cluster)
		a := n.newAgent("b1", home).start(t)
		time.Sleep(10 * time.Second)
		id := cluster.View().Builders[0].ID
		heal := n.cut()
		time.Sleep(lease + 10*time.Second)
		if got := states(cluster); got != "b1 lost" {
			t.Error(got)
		}
		heal()
		time.Sleep(10 * time.Second)
		if got := states(cluster); got != "b1 joined" || cluster.View().Builders[0].ID != id {
			t.Errorf("%s, id kept: %t", got, cluster.View().Builders[0].ID == id)
		}
		if !a.running() {
			t.Error("it left")
		}
	})
}

// The coordinator's process restarts: with its journal nothing changes, without it
// the builder checks in again, and a stop that was made stays made.
func TestCoordinatorRestarts(t *testing.T) {
	for _, tt := range []struct {
		name             string
		journal, stopped bool
	}{{"with its journal", true, false}, {"without a journal", false, false}, {"while it stops", true, true}} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "state.json")
			synctest.Test(t, func(t *testing.T) {
				n := newTailnet()
				cfg := func() coordinator.Config {
					cfg := coordinator.Config{Builders: []string{"b1"}}
					if tt.journal {
						j, err := journal.Open(file, clusterID)
						if err != nil {
							t.Fatal(err)
						}
						cfg.Journal = j
					}
					return cfg
				}
				first, end := newCluster(t, cfg())
				leave := n.coordinate(t, home, first)
				a := n.newAgent("b1", home).start(t)
				time.Sleep(20 * time.Second)
				id := first.View().Builders[0].ID
				if tt.stopped {
					heal := n.cut() // the builder does not hear of the stop
					_, err := first.Stop(t.Context(), coordinator.StopRequest{By: "the test"})
					if !errors.Is(err, coordinator.ErrRemain) {
						t.Errorf("stop: %v", err)
					}
					leave()
					heal()
				}
				leave()
				end()
				time.Sleep(5 * time.Second)

				second, _ := newCluster(t, cfg())
				n.coordinate(t, home, second)
				if !tt.stopped {
					time.Sleep(20 * time.Second)
					b := second.View().Builders[0]
					if b.State != coordinator.Joined || (b.ID == id) != tt.journal {
						t.Errorf("after the restart: %v, id kept: %t", b.State, b.ID == id)
					}
					stop(t, second)
				}
				if took, err := a.wait(); err != nil || took > time.Minute {
					t.Errorf("%v after %v", err, took)
				}
				if got := states(second); got != "b1 departed" {
					t.Error(got)
				}
			})
		})
	}
}

// The coordinator's address changes under way: the builder follows its cluster.
func TestCoordinatorMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const elsewhere = "100.64.0.101:8378"
		n := newTailnet()
		cluster, _ := newCluster(t, coordinator.Config{Builders: []string{"b1"}})
		leave := n.coordinate(t, home, cluster)
		a := n.newAgent("b1", home, elsewhere).start(t)
		time.Sleep(5 * time.Second)
		leave()
		n.coordinate(t, elsewhere, cluster)
		time.Sleep(30 * time.Second)
		if got := states(cluster); got != "b1 joined" || !strings.Contains(a.out.String(), "the coordinator is now coordinator-101") {
			t.Errorf("%s\n%s", got, a.out.String())
		}
		stop(t, cluster)
		if _, err := a.wait(); err != nil {
			t.Error(err)
		}
	})
}

// Another node holds the name: wait until it is gone.
func TestNameHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTailnet()
		cluster, _ := newCluster(t, coordinator.Config{Builders: []string{"b"}})
		n.coordinate(t, home, cluster)
		// Two nodes called b and b-1 would be; the tailnet of these tests has b1.
		holder := coordinator.Node{ID: "n-holder", Name: "b", Addr: addrOf("b9")}
		a := n.newAgent("b1", home)
		a.Name, a.Label = "b", func(s string) string { return s }
		if _, _, err := cluster.CheckIn(t.Context(), holder, checkIn("b")); err != nil {
			t.Fatal(err)
		}
		a.start(t)
		time.Sleep(30 * time.Second)
		if b := cluster.View().Builders[0]; b.Node.ID != holder.ID || !a.running() {
			t.Errorf("held by %s", b.Node.ID)
		}
	})
}

// A second agent with the name on the same node takes the place; the first says so
// and ends.
func TestReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTailnet()
		cluster, _ := newCluster(t, coordinator.Config{Builders: []string{"b1"}})
		n.coordinate(t, home, cluster)
		first := n.newAgent("b1", home).start(t)
		time.Sleep(20 * time.Second)
		second := n.newAgent("b1", home).start(t)
		if took, err := first.wait(); !errors.Is(err, builder.ErrReplaced) || took > 40*time.Second {
			t.Errorf("%v after %v", err, took)
		}
		time.Sleep(2 * time.Minute)
		if got := states(cluster); got != "b1 joined" || !second.running() {
			t.Error(got)
		}
	})
}

// The good-bye can't be said: the builder tries for a lease, as long as the coordinator takes
// it for there if its network is back, and goes all the same.
func TestDepartureFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTailnet()
		cluster, _ := newCluster(t, coordinator.Config{Builders: []string{"b1"}})
		n.coordinate(t, home, cluster)
		a := n.newAgent("b1", home)
		a.Transport = deaf{a.Transport}
		a.start(t)
		time.Sleep(5 * time.Second)
		begin := time.Now()
		report, err := cluster.Stop(t.Context(), coordinator.StopRequest{By: "the test", Wait: 30 * time.Second})
		if !errors.Is(err, coordinator.ErrRemain) || report.Builders[0].Left {
			t.Errorf("stop: %+v, %v", report, err)
		}
		if _, err := a.wait(); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took < lease || took > lease+time.Second {
			t.Errorf("it took %v", took)
		}
		if !strings.Contains(a.out.String(), "left, but could not say so") {
			t.Error(a.out.String())
		}
	})
}

// A signal that comes while the good-bye is being said shortens it.
func TestCancelledWhileLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTailnet()
		cluster, _ := newCluster(t, coordinator.Config{Builders: []string{"b1"}})
		n.coordinate(t, home, cluster)
		a := n.newAgent("b1", home)
		a.Transport = deaf{a.Transport}
		a.start(t)
		time.Sleep(5 * time.Second)
		cluster.Stop(t.Context(), coordinator.StopRequest{By: "the test"})
		time.Sleep(time.Second)
		if !a.running() {
			t.Fatal("it did not try again to say good-bye")
		}
		a.cancel(errors.New("SIGTERM"))
		if took, err := a.wait(); err != nil || took > 8500*time.Millisecond {
			t.Errorf("%v after %v", err, took)
		}
	})
}

// deaf loses departures.
type deaf struct{ http.RoundTripper }

func (d deaf) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Path, "/departure") {
		return nil, errors.New("connection reset by peer")
	}
	return d.RoundTripper.RoundTrip(r)
}
