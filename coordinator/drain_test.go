package coordinator_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
)

// building is a Dispatch whose builds a test lets end.
type building struct {
	mu    sync.Mutex
	count map[string]int
	err   error
}

func (b *building) Close(context.Context) error   { return nil }
func (b *building) Restore(context.Context) error { return nil }
func (b *building) Builds(context.Context) (map[string]int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	counts := make(map[string]int)
	for name, n := range b.count {
		counts[name] = n
	}
	return counts, b.err
}

func (b *building) set(name string, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count[name] = n
}

// drainRig is a cluster of two ready builders that are kept alive; the first has two builds.
func drainRig(t *testing.T, cfg coordinator.Config) (*harness, *building, func()) {
	b := &building{count: map[string]int{"b1": 2}}
	cfg.Builders, cfg.Dispatch = []string{"b1", "b2", "b3"}, b
	cfg.Quorum = 2
	h, end := start(t, cfg)
	for _, name := range []string{"b1", "b2"} {
		id := h.ready(name)
		go h.keep(name, id, 0)
	}
	synctest.Wait()
	// Their polls end with the test.
	t.Cleanup(func() { h.Stop(context.Background(), coordinator.StopRequest{Wait: time.Minute}) })
	return h, b, end
}

type stopped struct {
	report coordinator.StopReport
	err    error
	after  time.Duration
}

func stopping(h *harness, req coordinator.StopRequest) chan stopped {
	out, began := make(chan stopped, 1), time.Now()
	go func() {
		report, err := h.Stop(context.Background(), req)
		out <- stopped{report, err, time.Since(began)}
	}()
	synctest.Wait()
	return out
}

// Who has nothing to end leaves soon, who has builds leaves when they have ended.
func TestDrain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, b, _ := drainRig(t, coordinator.Config{})
		out := stopping(h, coordinator.StopRequest{By: "me", Drain: time.Hour, Wait: time.Minute})
		h.wantState("b1", coordinator.Draining)
		h.wantState("b2", coordinator.Draining)
		h.wantPhase(coordinator.Ready)
		if r := h.builder("b1").Reason; r != "drain requested by me; builds that still run: 2" {
			t.Errorf("b1: %s", r)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		h.wantState("b2", coordinator.Departed)
		h.wantState("b1", coordinator.Draining)

		// One that comes now is not used, and does not wait for the others.
		late := h.join("b3")
		wantErr(t, "Verified", h.Verified(late, 1, 1), coordinator.ErrNotJoined)
		go h.keep("b3", late, 0)
		time.Sleep(time.Second)
		synctest.Wait()
		h.wantState("b3", coordinator.Departed)
		h.wantState("b1", coordinator.Draining)

		time.Sleep(10 * time.Minute)
		b.set("b1", 0)
		got := <-out
		if got.err != nil || got.report.Cut != 0 || got.after < 10*time.Minute || got.after > 10*time.Minute+10*time.Second {
			t.Errorf("%+v", got)
		}
		h.wantPhase(coordinator.Stopped)
		for _, r := range got.report.Builders {
			if !r.Left || r.After == nil {
				t.Errorf("%+v", r)
			}
		}
	})
}

// What still runs when the time is over is cut off, and counted; so is what a plain stop
// finds, in the middle of a drain too.
func TestCut(t *testing.T) {
	for _, tt := range []struct {
		name  string
		reqs  []coordinator.StopRequest
		after time.Duration
	}{
		{"drained too long", []coordinator.StopRequest{{Drain: 5 * time.Minute, Wait: time.Minute}}, 5 * time.Minute},
		{"plain", []coordinator.StopRequest{{Wait: time.Minute}}, 0},
		{"plain while draining", []coordinator.StopRequest{{Drain: time.Hour, Wait: time.Minute}, {Wait: time.Minute}}, 0},
		{"by name", []coordinator.StopRequest{{Drain: time.Minute, Wait: time.Minute, Builders: []string{"b1"}}}, time.Minute},
		{"by name, plain", []coordinator.StopRequest{{Wait: time.Minute, Builders: []string{"B1"}}}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h, _, _ := drainRig(t, coordinator.Config{})
				var outs []chan stopped
				for _, req := range tt.reqs {
					outs = append(outs, stopping(h, req))
				}
				for _, out := range outs {
					got := <-out
					if got.err != nil || got.report.Cut != 2 || got.report.Builders[0].Cut != 2 || got.after < tt.after || got.after > tt.after+5*time.Second {
						t.Errorf("%+v", got)
					}
				}
			})
		})
	}
}

// Draining one builder leaves the others alone, and that it can't be known what runs is
// no reason to hold it for longer than was asked.
func TestDrainByName(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, b, _ := drainRig(t, coordinator.Config{})
		b.err = errors.New("no processes today")
		got := <-stopping(h, coordinator.StopRequest{Drain: time.Minute, Wait: time.Minute, Builders: []string{"b2"}})
		if got.err != nil || got.after < time.Minute || got.after > 61*time.Second {
			t.Errorf("%+v", got)
		}
		h.wantState("b1", coordinator.StateReady)
		h.wantState("b2", coordinator.Departed)
		h.wantPhase(coordinator.Ready)
	})
}

// A builder that falls silent while it is drained is lost, and does not come back into use.
func TestDrainingBuilderIsLost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := &building{count: map[string]int{"b1": 1}}
		h, _ := start(t, coordinator.Config{Builders: []string{"b1", "b2"}, Quorum: 1, Dispatch: b})
		id := h.ready("b1")
		out := stopping(h, coordinator.StopRequest{Drain: time.Hour, Wait: time.Second, Builders: []string{"b1"}})
		h.wantState("b1", coordinator.Draining)
		got := <-out
		if !errors.Is(got.err, coordinator.ErrRemain) && got.err != nil {
			t.Errorf("%+v", got)
		}
		h.wantState("b1", coordinator.Lost)
		if _, err := h.poll("b1", id); err != nil {
			t.Errorf("poll of a released builder that is back: %v", err)
		}
		wantErr(t, "Verified", h.Verified(id, 1, 1), coordinator.ErrNotJoined)
	})
}

// The coordinator's process ends in the middle of a drain: the next one carries it through.
func TestDrainSurvivesRestart(t *testing.T) {
	for _, names := range [][]string{nil, {"b1"}} {
		bubble(t, func(t *testing.T) {
			journal := &memory{}
			h, b, end := drainRig(t, coordinator.Config{Journal: journal})
			out := stopping(h, coordinator.StopRequest{Drain: 10 * time.Minute, Builders: names})
			id := h.builder("b1").ID
			end()
			wantErr(t, "Stop", (<-out).err, coordinator.ErrEnding)
			again, _ := start(t, coordinator.Config{Builders: []string{"b1", "b2", "b3"}, Quorum: 2, Journal: journal, Dispatch: b})
			synctest.Wait()
			again.wantState("b1", coordinator.Draining)
			go again.keep("b1", id, 0)
			time.Sleep(time.Minute)
			again.wantState("b1", coordinator.Draining)
			b.set("b1", 0)
			time.Sleep(5 * time.Second)
			synctest.Wait()
			again.wantState("b1", coordinator.Departed)
			switch p := again.View().Phase; {
			case len(names) > 0 && p != coordinator.Ready, len(names) == 0 && p < coordinator.Stopping:
				t.Errorf("the cluster is %s after the drain of %v", p, names)
			}
			if r := again.builder("b1").Reason; !strings.Contains(r, "left as it was told to") {
				t.Errorf("b1: %s", r)
			}
		})
	}
}

// A new instance of a builder that is drained is drained too: its job was run again, and
// the builder is to go all the same.
func TestNewInstanceIsDrainedToo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := &building{count: map[string]int{"b1": 1, "b2": 1}}
		h, _ := start(t, coordinator.Config{Builders: []string{"b1", "b2", "b3"}, Quorum: 1, Dispatch: b, Lease: 24 * time.Hour})
		h.ready("b1")
		h.ready("b2")
		h.ready("b3")
		out := stopping(h, coordinator.StopRequest{Drain: time.Hour, Builders: []string{"b1", "b2"}})
		h.wantState("b1", coordinator.Draining)
		again := h.join("b1")
		wantErr(t, "Verified", h.Verified(again, 1, 1), coordinator.ErrNotJoined)
		h.wantState("b1", coordinator.Joined)
		b.set("b2", 0)
		if got := <-out; got.after > 3*time.Second {
			t.Errorf("%+v", got)
		}
		if _, err := h.poll("b1", again); err != nil {
			t.Errorf("poll of the new instance after the drain: %v", err)
		}
	})
}

// Builders that are to leave are not balanced: a release or drain of several makes nobody
// ready on the way out.
func TestLeavingBuildersDoNotGetReady(t *testing.T) {
	for _, tt := range []struct {
		name string
		req  coordinator.StopRequest
	}{
		{"drained, all", coordinator.StopRequest{Drain: time.Hour}},
		{"drained, some", coordinator.StopRequest{Drain: time.Hour, Builders: []string{"b1", "b2"}}},
		{"released", coordinator.StopRequest{Builders: []string{"b1", "b2"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h, b, _ := drainRig(t, coordinator.Config{})
				b.set("b2", 1)
				in := checkIn("b2", [16]byte{2})
				in.Vitals = short()
				ticket, _, err := h.CheckIn(t.Context(), node("b2"), in)
				if err != nil {
					t.Fatal(err)
				}
				if err := h.Verified(ticket.ID, 1, 1); err != nil {
					t.Fatal(err)
				}
				go h.keep("b2", ticket.ID, 5*time.Second)
				h.wantState("b2", coordinator.Cordoned)
				before := h.Entered(coordinator.StateReady)
				tt.req.Wait = time.Minute
				out := stopping(h, tt.req)
				time.Sleep(time.Second)
				if n := h.Entered(coordinator.StateReady); n != before {
					t.Errorf("%d builders became ready as they were told to leave", n-before)
				}
				b.set("b1", 0)
				b.set("b2", 0)
				<-out
			})
		})
	}
}

// After a restart it is the shorter of two drains that counts, as before, and who asked
// first is told.
func TestShorterDrainSurvivesRestart(t *testing.T) {
	for _, names := range [][]string{nil, {"b1"}} {
		for _, bounds := range [][]time.Duration{{time.Hour, 10 * time.Minute}, {10 * time.Minute, time.Hour}} {
			bubble(t, func(t *testing.T) {
				journal := &memory{}
				h, b, end := drainRig(t, coordinator.Config{Journal: journal})
				id := h.builder("b1").ID
				for i, bound := range bounds {
					stopping(h, coordinator.StopRequest{By: []string{"me", "you"}[i], Drain: bound, Builders: names})
				}
				for range 2 { // the next process does not take itself for who asked
					end()
					next, stop := start(t, coordinator.Config{Builders: []string{"b1", "b2", "b3"}, Quorum: 2, Journal: journal, Dispatch: b})
					h, end = next, stop
					t.Cleanup(func() { next.Stop(context.Background(), coordinator.StopRequest{}) }) // ends its polls
					synctest.Wait()
					go h.keep("b1", id, 0)
					if r := h.builder("b1").Reason; r != "drain requested by me; builds that still run: 2" {
						t.Errorf("b1: %s", r)
					}
				}
				time.Sleep(11 * time.Minute)
				synctest.Wait()
				h.wantState("b1", coordinator.Departed)
			})
		}
	}
}
