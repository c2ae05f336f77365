package dispatch_test

import (
	"context"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/proc"
)

// renew renews a check-in with vitals that tell of so much free disk, of 100 GiB.
func (r *rig) renew(n int, name string, instance uuid.UUID, o coordinator.Offer, gib int64) {
	r.t.Helper()
	total := int64(100 << 30)
	_, _, err := r.cluster.CheckIn(r.t.Context(), r.node(n, name), coordinator.CheckIn{
		Cluster: clusterID, Name: name, Instance: instance, Offer: o,
		Vitals: &coordinator.Vitals{MemoryFreeBytes: 8 << 30, StoreFreeBytes: gib << 30, StoreTotalBytes: &total},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	settle()
}

// A cordoned builder gets no new builds; ssh goes on knowing it, for the builds that run
// there. When it comes back it needs no new check.
func TestCordonedBuildersAreNotInTheMachinesFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := build(t, "b1", "b2")
		r.run()
		instance := uuid.New()
		r.joinAs(1, "b1", instance, offer())
		r.join(2, "b2")
		settle()
		r.renew(1, "b1", instance, offer(), 3)
		r.wantState("b1", coordinator.Cordoned)
		r.wantListed("b1", false)
		r.wantListed("b2", true)
		if config := r.text(r.files.SSHConfig); !strings.Contains(config, "Host b1\n") {
			t.Errorf("ssh does not know b1 any more:\n%s", config)
		}
		// What it offers changes meanwhile.
		o := offer()
		o.MaxJobs, o.SpeedFactor = new(7), new(3)
		r.renew(1, "b1", instance, o, 3)
		r.wantListed("b1", false)
		r.renew(1, "b1", instance, o, 50)
		r.wantState("b1", coordinator.StateReady)
		r.wantListed("b1", true)
		if text := r.text(r.files.Machines); !strings.Contains(text, " - 7 3 ") {
			t.Errorf("machines without what b1 offers now:\n%s", text)
		}
		if b := r.builder("b1"); b.MaxJobs != 7 || b.SpeedFactor != 3 {
			t.Errorf("the cluster knows of %d jobs and speed %d, want 7 and 3", b.MaxJobs, b.SpeedFactor)
		}
		if n := r.checked("b1"); n != 1 {
			t.Errorf("b1 was checked %d times, want once", n)
		}
	})
}

// A builder that is drained goes out of the machines file, and nothing else of it.
func TestDrainingBuildersAreNotInTheMachinesFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := build(t, "b1", "b2")
		r.cfg.Links = func(context.Context) ([]nix.Link, error) {
			return []nix.Link{{Builder: "b1"}, {Builder: "b1"}, {Builder: "mine"}}, nil
		}
		r.newDispatcher()
		r.cluster = r.newCluster(coordinator.Config{Builders: []string{"b1", "b2"}, Lease: time.Hour, Dispatch: r.d})
		r.run()
		r.join(1, "b1")
		r.join(2, "b2")
		settle()
		counts, err := r.d.Builds(t.Context())
		if diff := cmp.Diff(map[string]int{"b1": 2, "mine": 1}, counts); diff != "" || err != nil {
			t.Errorf("builds: %v (-want +got):\n%s", err, diff)
		}
		drained := make(chan coordinator.StopReport, 1)
		go func() {
			report, _ := r.cluster.Stop(context.Background(), coordinator.StopRequest{Builders: []string{"b1"}, Drain: time.Minute})
			drained <- report
		}()
		settle()
		r.wantState("b1", coordinator.Draining)
		r.wantListed("b1", false)
		r.wantListed("b2", true)
		if config := r.text(r.files.SSHConfig); !strings.Contains(config, "Host b1\n") {
			t.Errorf("ssh does not know b1 any more:\n%s", config)
		}
		if report := <-drained; report.Cut != 2 {
			t.Errorf("%d builds were cut off, want 2", report.Cut)
		}
	})
}

// What Nix has sent to a builder that is gone is ended, also what it sends by a machines
// file that it has read before. Nothing else is.
func TestLinksOfABuilderThatIsGoneAreEnded(t *testing.T) {
	r := build(t, "b1", "b2")
	s := r.sends()
	first, stays, mine := s.send("b1"), s.send("b2"), s.send("mine")
	r.run()
	id := r.join(1, "b1")
	r.join(2, "b2")
	r.awaitReady()
	if err := r.cluster.Depart(t.Context(), r.node(1, "b1"), id, coordinator.Departure{Reason: coordinator.DepartFailed}); err != nil {
		t.Fatal(err)
	}
	first.wantEnded()
	s.send("b1").wantEnded()
	r.end() // waits for all that it began
	stays.wantRunning()
	mine.wantRunning()
}

// The process before ended between the two: the builder is gone, and its builds are not.
func TestLinksThatAnEarlierProcessDidNotEnd(t *testing.T) {
	cfg := coordinator.Config{Builders: []string{"b1", "b2", "b3"}, Quorum: 2, Journal: &memory{}}
	r := build(t)
	r.cluster = r.newCluster(cfg)
	s := r.sends()
	lost, stays, mine := s.send("b1"), s.send("b2"), s.send("mine")
	r.run()
	id := r.join(1, "b1")
	r.join(2, "b2")
	r.awaitReady()
	r.end()
	if err := r.cluster.Depart(t.Context(), r.node(1, "b1"), id, coordinator.Departure{Reason: coordinator.DepartFailed}); err != nil {
		t.Fatal(err)
	}
	r.cluster, r.d = r.newCluster(cfg), nil
	r.run()
	lost.wantEnded()
	r.end()
	stays.wantRunning()
	mine.wantRunning()
}

// sends are processes that stand for builds that were sent to builders.
type sends struct {
	t     *testing.T
	mu    sync.Mutex
	links []nix.Link // guarded by mu
}

// sends lets the dispatcher see what a test sends.
func (r *rig) sends() *sends {
	s := &sends{t: r.t}
	r.cfg.Links = func(context.Context) ([]nix.Link, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return slices.Clone(s.links), nil
	}
	return s
}

// sent is one of them.
type sent struct {
	t     *testing.T
	name  string
	ended chan error // gets how it ended
}

// send begins one.
func (s *sends) send(name string) sent {
	s.t.Helper()
	ssh := exec.CommandContext(s.t.Context(), "sleep", "1000")
	if err := ssh.Start(); err != nil {
		s.t.Fatal(err)
	}
	id, err := proc.Of(ssh.Process.Pid)
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.links = append(s.links, nix.Link{Builder: name, Process: id})
	ended := make(chan error, 1)
	go func() { ended <- ssh.Wait() }()
	return sent{s.t, name, ended}
}

func (s sent) wantEnded() {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(30 * time.Second):
		s.t.Fatalf("the build on %s was not ended", s.name)
	}
}

func (s sent) wantRunning() {
	s.t.Helper()
	select {
	case err := <-s.ended:
		s.t.Errorf("the build on %s was ended: %v", s.name, err)
	default:
	}
}

func (r *rig) awaitReady() {
	for v := r.cluster.View(); v.Phase != coordinator.Ready; v = r.cluster.Await(r.t.Context(), v.Revision, time.Minute) {
	}
}
