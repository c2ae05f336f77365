package dispatch_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
)

// told is a scheduler that keeps what it was told last.
type told struct {
	mu       sync.Mutex
	machines []scheduler.Machine
	lost     map[string]string // why, by name
	closed   bool
}

func (s *told) Set(machines []scheduler.Machine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.machines = machines
}

func (s *told) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

func (s *told) Lose(machine, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost == nil {
		s.lost = map[string]string{}
	}
	s.lost[machine] = reason
}

func (s *told) Running() map[string]int { return map[string]int{"b1": 3} }

// states are the machines by name.
func (s *told) states() map[string]scheduler.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	states := map[string]scheduler.State{}
	for _, m := range s.machines {
		states[m.Name] = m.State
	}
	return states
}

func (s *told) machine(name string) scheduler.Machine {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.machines {
		if m.Name == name {
			return m
		}
	}
	return scheduler.Machine{}
}

// hook gives the rig's dispatcher a build hook, and returns who is told of machines.
func (r *rig) hook() *told {
	s := new(told)
	r.cfg.Hook, r.cfg.Scheduler = []string{"/opt/bin/nix-builders", "build-hook", "/run/hook.sock"}, s
	return s
}

func TestTheSchedulerIsToldOfMachines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := build(t, "b1", "B2")
		s := r.hook()
		answer := make(chan struct{})
		r.check = func(context.Context, nix.Machine) error { <-answer; return nil }
		r.run()
		instance := uuid.New()
		r.joinAs(1, "b1", instance, offer())
		settle()
		coming := scheduler.Machine{
			Name: "b1", Systems: offer().Systems, Features: offer().Features, Memory: offer().MemoryBytes,
			Slots: 4, Speed: 1,
		}
		if diff := cmp.Diff(coming, s.machine("b1")); diff != "" {
			t.Errorf("before its store answered (-want +got):\n%s", diff)
		}
		close(answer)
		settle()
		ready := coming
		ready.State = scheduler.Ready
		got := s.machine("b1")
		ready.Line, ready.Mandatory = got.Line, got.Mandatory
		if diff := cmp.Diff(ready, got); diff != "" {
			t.Errorf("when its store had answered (-want +got):\n%s", diff)
		}
		if want := "x86_64-linux,aarch64-linux - 16 1 "; !strings.HasPrefix(got.Line, "ssh-ng://") || !strings.Contains(got.Line, want) {
			t.Errorf("its line is %q, and should have %q: more locks than slots", got.Line, want)
		}
		r.join(2, "B2")
		settle()
		r.renew(1, "b1", instance, offer(), 3) // GiB that are free
		if diff := cmp.Diff(map[string]scheduler.State{"b1": scheduler.Resting, "b2": scheduler.Ready}, s.states()); diff != "" {
			t.Errorf("with b1 cordoned (-want +got):\n%s", diff)
		}
		if err := r.cluster.Depart(t.Context(), r.node(1, "b1"), r.builder("b1").ID, coordinator.Departure{Reason: "cancelled"}); err != nil {
			t.Fatal(err)
		}
		settle()
		if diff := cmp.Diff(map[string]scheduler.State{"b2": scheduler.Ready}, s.states()); diff != "" {
			t.Errorf("without b1 (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(map[string]string{"b1": r.builder("b1").Reason}, s.lost); diff != "" {
			t.Errorf("why (-want +got):\n%s", diff)
		}
	})
}

// A machine that goes is told of at once, whatever becomes of the files; one that comes is
// of use when the files have it.
func TestTheSchedulerIsToldWhenFilesFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := build(t, "b1", "b2")
		s := r.hook()
		r.run()
		r.join(1, "b1")
		settle()
		if err := os.Remove(r.files.Machines); err != nil {
			t.Fatal(err)
		}
		r.put(filepath.Join(r.files.Machines, "in", "the", "way"), "")
		r.join(2, "b2")
		settle()
		if got := s.machine("b2"); got.State != scheduler.Coming {
			t.Errorf("b2, which is not in the files, is %+v", got)
		}
		if err := r.cluster.Depart(t.Context(), r.node(1, "b1"), r.builder("b1").ID, coordinator.Departure{Reason: "cancelled"}); err != nil {
			t.Fatal(err)
		}
		settle()
		if _, there := s.states()["b1"]; there {
			t.Error("b1 left, and the scheduler has it still")
		}
		if err := os.RemoveAll(r.files.Machines); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Second)
		if got := s.machine("b2"); got.State != scheduler.Ready {
			t.Errorf("b2 is in the files, and the scheduler has it as %+v", got)
		}
	})
}

func TestHookIsConfiguredAndTakenOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := build(t, "b1")
		s := r.hook()
		r.put(r.files.UserConf, "keep-going = true\n")
		r.run()
		r.join(1, "b1")
		settle()
		if text := r.text(r.files.UserConf); !strings.Contains(text, "build-hook = /opt/bin/nix-builders build-hook /run/hook.sock\n") {
			t.Errorf("the daemon's user's nix.conf has no hook:\n%s", text)
		}
		if n := r.restarted(); n != 1 {
			t.Errorf("the daemon was restarted %d times for two files, want once", n)
		}
		counts, err := r.d.Builds(t.Context())
		if diff := cmp.Diff(map[string]int{"b1": 3}, counts); diff != "" || err != nil {
			t.Errorf("builds: %v (-want +got):\n%s", err, diff)
		}
		if err := r.d.Restore(t.Context()); err != nil {
			t.Fatal(err)
		}
		if text := r.text(r.files.UserConf); text != "keep-going = true\n" {
			t.Errorf("the daemon's user's nix.conf was restored to:\n%s", text)
		}
		if !s.closed {
			t.Error("the scheduler was not closed")
		}
		if n := r.restarted(); n != 2 {
			t.Errorf("the daemon was restarted %d times, want twice", n)
		}
	})
}
