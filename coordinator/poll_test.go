package coordinator_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
)

type pollResult struct {
	teardown coordinator.Teardown
	err      error
	after    time.Duration
}

// polling starts a poll and returns where its result will be.
func (h *harness) polling(ctx context.Context, name string, id uuid.UUID, wait time.Duration) <-chan pollResult {
	result := make(chan pollResult, 1)
	began := time.Now()
	go func() {
		teardown, err := h.AwaitTeardown(ctx, node(name), id, wait)
		result <- pollResult{teardown, err, time.Since(began)}
	}()
	synctest.Wait()
	return result
}

func TestPollEndsInTime(t *testing.T) {
	for _, tc := range []struct{ wait, want time.Duration }{
		{10 * time.Second, 10 * time.Second},
		{15 * time.Second, 15 * time.Second},
		{time.Hour, 15 * time.Second}, // a third of the lease
		{0, 0},
		{-time.Second, 0},
	} {
		bubble(t, func(t *testing.T) {
			h := newCluster(t, coordinator.Config{})
			r := <-h.polling(t.Context(), "b1", h.join("b1"), tc.wait)
			wantErr(t, "poll", r.err, coordinator.ErrNotYet)
			if r.after != tc.want {
				t.Errorf("a poll of %v ended after %v, want %v", tc.wait, r.after, tc.want)
			}
		})
	}
}

func TestNewerPollEndsOlder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newCluster(t, coordinator.Config{})
		id := h.join("b1")
		other := h.polling(t.Context(), "b2", h.join("b2"), 15*time.Second)
		old := h.polling(t.Context(), "b1", id, 15*time.Second)
		time.Sleep(3 * time.Second)
		fresh := h.polling(t.Context(), "b1", id, 15*time.Second)
		if r := <-old; !errors.Is(r.err, coordinator.ErrNotYet) || r.after != 3*time.Second {
			t.Errorf("the older poll ended with %v after %v, want nothing yet at once", r.err, r.after)
		}
		time.Sleep(2 * time.Second)
		freshest := h.polling(t.Context(), "b1", id, 15*time.Second)
		if r := <-fresh; !errors.Is(r.err, coordinator.ErrNotYet) || r.after != 2*time.Second {
			t.Errorf("the newer poll ended with %v after %v, want nothing yet at once", r.err, r.after)
		}
		if r := <-freshest; !errors.Is(r.err, coordinator.ErrNotYet) || r.after != 15*time.Second {
			t.Errorf("the newest poll ended with %v after %v, want nothing yet after its 15s", r.err, r.after)
		}
		if r := <-other; r.after != 15*time.Second {
			t.Errorf("another builder's poll ended after %v", r.after)
		}
	})
}

func TestPollCallerGone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newCluster(t, coordinator.Config{})
		gone := errors.New("the connection broke")
		ctx, cancel := context.WithCancelCause(t.Context())
		id := h.join("b1")
		poll := h.polling(ctx, "b1", id, 15*time.Second)
		cancel(gone)
		wantErr(t, "poll", (<-poll).err, gone)
		_, err := h.poll("b1", id)
		wantErr(t, "next poll", err, coordinator.ErrNotYet)
	})
}

// What ends a poll that waits, and what it then says.
func TestPollEnds(t *testing.T) {
	for _, tc := range []struct {
		name   string
		do     func(h *harness, id uuid.UUID)
		err    error
		reason string
		phase  coordinator.Phase
	}{
		{"stop", func(h *harness, _ uuid.UUID) {
			h.Stop(context.Background(), coordinator.StopRequest{By: "tester"})
		}, nil, "stop requested by tester", coordinator.Stopping},
		{"release", func(h *harness, _ uuid.UUID) {
			h.Stop(context.Background(), coordinator.StopRequest{By: "tester", Builders: []string{"b1"}})
		}, nil, "release requested by tester", coordinator.Gathering},
		{"rejection", func(h *harness, id uuid.UUID) { h.Reject(id, "no nix") }, nil, "rejected: no nix", coordinator.Gathering},
		{"departure", func(h *harness, id uuid.UUID) { h.depart("b1", id) }, nil, "left as it was told to", coordinator.Gathering},
		{"new instance", func(h *harness, _ uuid.UUID) { h.join("b1") }, coordinator.ErrReplaced, "", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h := newCluster(t, coordinator.Config{})
				id := h.join("b1")
				other := h.polling(t.Context(), "b2", h.join("b2"), 15*time.Second)
				poll := h.polling(t.Context(), "b1", id, 15*time.Second)
				time.Sleep(time.Second)
				tc.do(h, id)
				r := <-poll
				wantErr(t, "poll", r.err, tc.err)
				if r.after != time.Second {
					t.Errorf("the poll ended after %v, want at once", r.after)
				}
				if r.teardown.Reason != tc.reason || r.teardown.Phase != tc.phase {
					t.Errorf("teardown = %+v, want %q in %s", r.teardown, tc.reason, tc.phase)
				}
				if want := tc.name == "stop"; ((<-other).after == time.Second) != want {
					t.Errorf("another builder's poll ended at once = %v, want %v", !want, want)
				}
			})
		})
	}
}

func TestLeaseRenewals(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, _ := start(t, coordinator.Config{})
		id := h.ready("b1")
		instance := checkIn("b2", uuid.New())
		if _, _, err := h.CheckIn(t.Context(), node("b2"), instance); err != nil {
			t.Fatal(err)
		}
		h.join("b3")
		for range 4 {
			time.Sleep(44 * time.Second)
			if _, err := h.poll("b1", id); !errors.Is(err, coordinator.ErrNotYet) {
				t.Fatal(err)
			}
			if _, _, err := h.CheckIn(t.Context(), node("b2"), instance); err != nil {
				t.Fatal(err)
			}
		}
		h.wantState("b1", coordinator.StateReady)
		h.wantState("b2", coordinator.Joined)
		h.wantState("b3", coordinator.Lost)
		if b := h.builder("b3"); b.Reason != "silent for 45s, last heard at 00:00:00Z" || b.Since.Sub(b.JoinedAt) != 45*time.Second || b.LeftAt != b.Since {
			t.Errorf("b3 = %+v, want it lost after exactly its lease", b)
		}
	})
}

// An open poll proves nothing: the lease runs from its arrival.
func TestOpenPollDoesNotRenew(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, _ := start(t, coordinator.Config{})
		id := h.join("b1")
		joined := time.Now()
		<-h.polling(t.Context(), "b1", id, 15*time.Second)
		for h.builder("b1").State == coordinator.Joined {
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if after := time.Since(joined); after != 45*time.Second {
			t.Errorf("lost %v after the poll's arrival, want 45s", after)
		}
	})
}

func TestLostComesBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, _ := start(t, coordinator.Config{})
		id := h.ready("b1")
		time.Sleep(time.Minute)
		synctest.Wait()
		b := h.builder("b1")
		if b.State != coordinator.Lost || b.Silent != time.Minute {
			t.Fatalf("b1 is %s, silent for %v", b.State, b.Silent)
		}
		wantErr(t, "Verified", h.Verified(id, 4, 1), coordinator.ErrNotJoined)
		_, err := h.poll("b1", id)
		wantErr(t, "poll", err, coordinator.ErrNotYet)
		b = h.builder("b1")
		if b.State != coordinator.Joined || b.ID != id || b.MaxJobs != 0 || !b.LeftAt.IsZero() || b.Silent != 0 {
			t.Errorf("b1 = %+v, want it joined again, its store not shown to answer", b)
		}
	})
}

// A builder that joins while the watch sleeps is not lost late.
func TestLeaseOfLateBuilder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, _ := start(t, coordinator.Config{GatherTimeout: time.Hour})
		time.Sleep(100 * time.Second)
		h.join("b1")
		time.Sleep(45*time.Second - time.Nanosecond)
		synctest.Wait()
		h.wantState("b1", coordinator.Joined)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		h.wantState("b1", coordinator.Lost)
	})
}
