package coordinator_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
)

var states = []coordinator.State{
	coordinator.Expected, coordinator.Joined, coordinator.StateReady,
	coordinator.Cordoned, coordinator.Draining,
	coordinator.Lost, coordinator.Departed, coordinator.Rejected,
}

var phases = []coordinator.Phase{
	coordinator.Gathering, coordinator.Ready, coordinator.Failed, coordinator.Stopping, coordinator.Stopped,
}

// bring makes b1 enter the state, from Expected, through calls that anyone can make.
func bring(h *harness, to coordinator.State) (id uuid.UUID) {
	h.t.Helper()
	switch to {
	case coordinator.Expected:
		return uuid.New()
	case coordinator.Joined:
		return h.join("b1")
	case coordinator.StateReady:
		return h.ready("b1")
	case coordinator.Cordoned:
		id = h.ready("b1")
		h.renew("b1", short())
	case coordinator.Draining:
		id = h.ready("b1")
		h.drain("b1")
	case coordinator.Lost:
		id = h.join("b1")
		h.silence("b1")
	case coordinator.Departed:
		id = h.join("b1")
		h.depart("b1", id)
	case coordinator.Rejected:
		id = h.join("b1")
		if err := h.Reject(id, "no nix"); err != nil {
			h.t.Fatal(err)
		}
	}
	return id
}

// push does what makes a builder of the id enter the state, if anything can.
func push(h *harness, id uuid.UUID, to coordinator.State) {
	ctx := context.Background()
	switch to {
	case coordinator.Joined:
		h.CheckIn(ctx, node("b1"), checkIn("b1", uuid.New()))
	case coordinator.StateReady:
		h.Verified(id, 1, 1)
		if h.builder("b1").State == coordinator.Cordoned {
			h.renew("b1", did(0, 0))
		}
	case coordinator.Cordoned:
		h.renew("b1", short())
	case coordinator.Draining:
		h.drain("b1")
	case coordinator.Lost:
		h.silence("b1")
	case coordinator.Departed:
		h.Depart(ctx, node("b1"), id, coordinator.Departure{Reason: coordinator.DepartFailed})
	case coordinator.Rejected:
		h.Reject(id, "no nix")
	}
}

func TestEveryTransition(t *testing.T) {
	if len(coordinator.Transitions) != len(states) {
		t.Fatalf("the table has %d states, the test %d", len(coordinator.Transitions), len(states))
	}
	for _, from := range states {
		for _, to := range states {
			t.Run(from.String()+" to "+to.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					// Of the two one is ready from the start: the cluster is, and somebody
					// stands in for b1.
					h, _ := start(t, coordinator.Config{
						Builders: []string{"b1", "b2"}, Quorum: 1, Dispatch: busy{"b1": 1},
					})
					h.ready("b2")
					id := bring(h, from)
					h.wantState("b1", from)
					before := h.View()
					events := h.Follow(before.Event, 8)
					defer events.Close()

					push(h, id, to)
					after := h.View()

					if !slices.Contains(coordinator.Transitions[from], to) {
						if to == coordinator.Cordoned || to == coordinator.Draining {
							// A check-in brings some back, and a drain releases at once who has
							// nothing to end: other transitions, and events of their own.
							before = after
						}
						if from != to && h.builder("b1").State == to {
							t.Fatalf("the table does not have this transition, and it was made")
						}
						if after.Event != before.Event {
							t.Errorf("events %d to %d, want none", before.Event, after.Event)
						}
						return
					}
					h.wantState("b1", to)
					e := <-events.C()
					if e.From != from.String() || e.To != to.String() || e.Builder != "b1" || e.Reason == "" ||
						e.Number != before.Event+1 || e.Cluster != clusterID || !e.At.Equal(time.Now()) {
						t.Errorf("event = %+v", e)
					}
					if string(e.Type) != "builder."+to.String() {
						t.Errorf("event type = %s", e.Type)
					}
					if after.Revision <= before.Revision {
						t.Errorf("revision %d to %d, want it to grow", before.Revision, after.Revision)
					}
					if b := h.builder("b1"); !strings.HasPrefix(b.Reason, e.Reason) || !b.Since.Equal(e.At) {
						t.Errorf("builder has reason %q since %v, the event %q at %v", b.Reason, b.Since, e.Reason, e.At)
					}
				})
			})
		}
	}
}

func TestEveryPhaseTransition(t *testing.T) {
	ctx := context.Background()
	for _, from := range phases {
		for _, to := range phases {
			t.Run(from.String()+" to "+to.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					h, _ := start(t, coordinator.Config{Builders: []string{"b1", "b2"}, Quorum: 1})
					var id uuid.UUID
					switch from {
					case coordinator.Ready:
						id = h.ready("b1")
					case coordinator.Failed:
						time.Sleep(coordinator.DefaultGatherTimeout)
						synctest.Wait()
					case coordinator.Stopping:
						id = h.join("b1")
						h.Stop(ctx, coordinator.StopRequest{})
					case coordinator.Stopped:
						h.Stop(ctx, coordinator.StopRequest{})
					}
					h.wantPhase(from)
					before := h.View()
					events := h.Follow(before.Event, 8)
					defer events.Close()

					switch to {
					case coordinator.Gathering:
						return // nothing leads there
					case coordinator.Ready:
						id2 := h.join("b2")
						h.Verified(id2, 1, 1)
					case coordinator.Failed:
						for range 20 { // the one that is there stays
							if id != uuid.Nil {
								h.poll("b1", id)
							}
							time.Sleep(coordinator.DefaultGatherTimeout / 18)
						}
						synctest.Wait()
					case coordinator.Stopping:
						if from == coordinator.Gathering {
							h.join("b1")
						} else if from != coordinator.Stopping && from != coordinator.Stopped {
							h.join("b2")
						}
						h.Stop(ctx, coordinator.StopRequest{})
					case coordinator.Stopped:
						if id != uuid.Nil {
							h.depart("b1", id)
						}
					}
					got := h.View()
					if !slices.Contains(coordinator.PhaseTransitions[from], to) {
						if got.Phase != from {
							t.Errorf("%s became %s, and the table does not have it", from, got.Phase)
						}
						return
					}
					h.wantPhase(to)
					for e := range events.C() {
						if e.Builder != "" {
							continue
						}
						if e.From != from.String() || e.To != to.String() || string(e.Type) != "cluster."+to.String() || e.Reason == "" {
							t.Errorf("event = %+v", e)
						}
						if got.Reason != e.Reason || !got.Since.Equal(e.At) {
							t.Errorf("cluster has reason %q since %v, the event %q at %v", got.Reason, got.Since, e.Reason, e.At)
						}
						break
					}
				})
			})
		}
	}
}

func TestWords(t *testing.T) {
	for _, s := range states {
		text, err := s.MarshalText()
		var back coordinator.State
		if err != nil || back.UnmarshalText(text) != nil || back != s {
			t.Errorf("%v: %q, %v, back %v", s, text, err, back)
		}
	}
	for _, p := range phases {
		text, err := p.MarshalText()
		var back coordinator.Phase
		if err != nil || back.UnmarshalText(text) != nil || back != p {
			t.Errorf("%v: %q, %v, back %v", p, text, err, back)
		}
	}
	if got := coordinator.Phase(9).String(); got != "phase(9)" {
		t.Errorf("Phase(9) = %s", got)
	}
	if _, err := coordinator.State(-1).MarshalText(); err == nil {
		t.Error("State(-1) has a text")
	}
	if err := new(coordinator.State).UnmarshalText([]byte("resting")); err == nil {
		t.Error("resting is a state")
	}
}
