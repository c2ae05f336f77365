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

// A process that did not run for a while, here because its disk held it, takes nobody for
// lost for what it did not read meanwhile: each gets a grace from when it goes on.
func TestTimeInWhichNobodyListened(t *testing.T) {
	bubble(t, func(t *testing.T) {
		journal := &memory{}
		h, _ := start(t, coordinator.Config{Journal: journal})
		h.ready("b1")
		id := h.ready("b2")
		time.Sleep(30 * time.Second)
		h.poll("b2", id)
		journal.setDelay(time.Minute)
		time.Sleep(15 * time.Second) // b1 is lost, and that takes a minute
		synctest.Wait()
		journal.setDelay(0)
		time.Sleep(time.Minute + coordinator.DefaultLease/3 - time.Millisecond)
		synctest.Wait()
		h.wantState("b1", coordinator.Lost)
		h.wantState("b2", coordinator.StateReady)
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		h.wantState("b2", coordinator.Lost)
	})
}
