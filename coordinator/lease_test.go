package coordinator_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
)

// A poll whose connection ends before the answer starts a grace of a third of the lease,
// counted from then; a call within it is as good as none had broken.
func TestBrokenPoll(t *testing.T) {
	const lease, grace = coordinator.DefaultLease, coordinator.DefaultLease / 3
	breaks := func(h *harness, id uuid.UUID, after time.Duration) {
		ctx, cancel := context.WithTimeout(context.Background(), after)
		defer cancel()
		h.AwaitTeardown(ctx, node("b1"), id, time.Hour)
		synctest.Wait()
	}
	t.Run("and nobody calls again", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			h, _ := start(t, coordinator.Config{})
			id := h.ready("b1")
			breaks(h, id, 5*time.Second)
			time.Sleep(grace - time.Millisecond)
			synctest.Wait()
			h.wantState("b1", coordinator.StateReady)
			time.Sleep(2 * time.Millisecond)
			synctest.Wait()
			h.wantState("b1", coordinator.Lost)
			if b := h.builder("b1"); !strings.Contains(b.Reason, "silent for 20s, last heard at 00:00:00Z, its connection ended") {
				t.Errorf("reason = %s", b.Reason)
			}
		})
	})
	t.Run("and the builder calls again", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			h, _ := start(t, coordinator.Config{})
			id := h.ready("b1")
			breaks(h, id, 5*time.Second)
			time.Sleep(grace - time.Millisecond)
			h.poll("b1", id)
			time.Sleep(lease - time.Millisecond)
			synctest.Wait()
			h.wantState("b1", coordinator.StateReady)
			time.Sleep(2 * time.Millisecond)
			synctest.Wait()
			h.wantState("b1", coordinator.Lost)
		})
	})
	t.Run("late in the lease", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			h, _ := start(t, coordinator.Config{Lease: 45 * time.Second})
			id := h.ready("b1")
			breaks(h, id, 14*time.Second)
			breaks(h, id, 14*time.Second)
			time.Sleep(grace + time.Millisecond)
			synctest.Wait()
			h.wantState("b1", coordinator.Lost)
		})
	})
	// The newer poll of a builder whose network has changed comes before the older breaks.
	t.Run("after a newer one came", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			h, _ := start(t, coordinator.Config{})
			id := h.ready("b1")
			ctx, cancel := context.WithCancel(context.Background())
			go h.AwaitTeardown(ctx, node("b1"), id, time.Hour)
			synctest.Wait()
			go h.AwaitTeardown(context.Background(), node("b1"), id, time.Hour)
			synctest.Wait()
			cancel()
			time.Sleep(lease - time.Millisecond)
			synctest.Wait()
			h.wantState("b1", coordinator.StateReady)
		})
	})
}

// A dead runner takes its log with it: what is known of its end is in the event.
func TestLostBuilderLeavesItsVitals(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, _ := start(t, coordinator.Config{})
		h.ready("b1")
		time.Sleep(10 * time.Second)
		v, stall := short(), 63.0
		v.MemoryStallPercent = &stall
		h.renew("b1", v)
		events := h.Follow(h.View().Event, 8)
		defer events.Close()
		time.Sleep(coordinator.DefaultLease)
		synctest.Wait()
		e := <-events.C()
		want := "silent for 45s, last heard at 00:00:10Z; its vitals 45s before the end: cpu 50 %, memory 8.0 GiB of 16.0 GiB free, " +
			"/nix 9.0 GiB of 100.0 GiB free, stalled on memory 63 % of the time, builds: 2"
		if e.Type != coordinator.BuilderLost || e.Reason != want {
			t.Errorf("event %s: %s\nwant: %s", e.Type, e.Reason, want)
		}
		if n := h.Entered(coordinator.Lost); n != 1 {
			t.Errorf("builders were lost %d times, want once", n)
		}
	})
}

// When the process itself did not run, nobody is lost because of that, whatever woke it and
// whenever in the lease that was. A save that takes long stands in for the stop.
func TestNobodyIsLostForAStopOfTheProcess(t *testing.T) {
	const lease = 45 * time.Second
	for _, tt := range []struct {
		name   string
		stop   time.Duration // how long the process does not run, from 30 s before b1's lease ends
		broken bool          // a poll of b2's breaks meanwhile
	}{
		{"beyond the end of the lease", 40 * time.Second, false},
		{"beyond it, and a poll broke", 40 * time.Second, true},
		{"until just before the end", 30*time.Second - time.Millisecond, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for range 20 { // which of two wakings comes first is chance
				bubble(t, func(t *testing.T) {
					journal := &memory{}
					h, _ := start(t, coordinator.Config{Lease: lease, Journal: journal})
					h.ready("b3") // is lost first: its save is the one that takes long
					time.Sleep(30 * time.Second)
					h.ready("b1")
					other := h.ready("b2")
					journal.set(tt.stop)
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					time.Sleep(14 * time.Second)
					go h.AwaitTeardown(ctx, node("b2"), other, time.Minute)
					time.Sleep(time.Second) // the end of b3's lease
					synctest.Wait()
					h.wantState("b3", coordinator.Lost)
					lost := time.Now()
					if tt.broken {
						cancel()
					}
					journal.set(0)
					time.Sleep(tt.stop + lease/3 - time.Millisecond)
					synctest.Wait()
					h.wantState("b1", coordinator.StateReady)
					if b, want := h.builder("b3"), time.Since(lost)+lease; b.Silent != want {
						t.Errorf("b3, which was lost before, is silent for %v, want %v", b.Silent, want)
					}
					time.Sleep(lease)
					synctest.Wait()
					h.wantState("b1", coordinator.Lost)
				})
			}
		})
	}
}
