package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
)

type gathered struct {
	view coordinator.View
	err  error
}

func (h *harness) gathering(ctx context.Context) <-chan gathered {
	result := make(chan gathered, 1)
	go func() {
		view, err := h.Gathered(ctx)
		result <- gathered{view, err}
	}()
	return result
}

func TestQuorum(t *testing.T) {
	for _, tc := range []struct{ quorum, need int }{{0, 3}, {1, 1}, {2, 2}, {3, 3}} {
		bubble(t, func(t *testing.T) {
			h, _ := start(t, coordinator.Config{Quorum: tc.quorum})
			result := h.gathering(t.Context())
			for i, name := range []string{"b2", "b3", "b1"} {
				if i == tc.need {
					break
				}
				h.wantPhase(coordinator.Gathering)
				h.ready(name)
			}
			r := <-result
			if r.err != nil || r.view.Phase != coordinator.Ready || r.view.Quorum != tc.need {
				t.Errorf("quorum %d: Gathered = %s, quorum %d, %v", tc.quorum, r.view.Phase, r.view.Quorum, r.err)
			}
			time.Sleep(time.Hour) // the others never come, those leave: it stays ready
			h.wantPhase(coordinator.Ready)
		})
	}
}

func TestQuorumAfterLoss(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, _ := start(t, coordinator.Config{Builders: []string{"b1", "b2"}})
		id := h.ready("b1")
		time.Sleep(time.Minute)
		synctest.Wait()
		h.ready("b2")
		h.wantPhase(coordinator.Gathering) // b1 is lost
		h.poll("b1", id)
		h.wantPhase(coordinator.Gathering) // b1 is joined
		if err := h.Verified(id, 1, 1); err != nil {
			t.Fatal(err)
		}
		h.wantPhase(coordinator.Ready)
	})
}

func TestReleaseWhileGathering(t *testing.T) {
	release := func(h *harness, names ...string) coordinator.StopReport {
		h.t.Helper()
		report, err := h.Stop(h.t.Context(), coordinator.StopRequest{Builders: names})
		if err != nil {
			h.t.Error(err)
		}
		return report
	}
	h := newCluster(t, coordinator.Config{})
	h.ready("b1")
	release(h, "b2")
	h.wantPhase(coordinator.Gathering)
	if got := h.View().Quorum; got != 2 {
		t.Errorf("quorum = %d, want 2", got)
	}
	release(h, "b3")
	h.wantPhase(coordinator.Ready)

	h = newCluster(t, coordinator.Config{Quorum: 2}) // 2 of 3: one may go
	release(h, "b3")
	if got := h.View().Quorum; got != 2 {
		t.Errorf("quorum = %d, want 2", got)
	}
	release(h, "b1", "b2")
	h.wantPhase(coordinator.Failed)
	if _, err := h.Gathered(t.Context()); !errors.Is(err, coordinator.ErrFailed) {
		t.Errorf("Gathered = %v, want the cluster failed", err)
	}
}

func TestGatherTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := coordinator.Config{
			Builders: []string{"nix-builder-a1-1", "nix-builder-a1-2", "nix-builder-a1-3", "b4", "b5", "b6"},
			Quorum:   5,
		}
		h, _ := start(t, cfg)
		result := h.gathering(t.Context())
		began := time.Now()
		time.Sleep(10 * time.Second)
		h.ready("nix-builder-a1-1") // and then silent
		joined := h.join("nix-builder-a1-3")
		h.Note(joined, "store check: Permission denied (tailscale)")
		rejected := h.join("b4")
		if err := h.Reject(rejected, "its Nix 2.3 is too old"); err != nil {
			t.Fatal(err)
		}
		h.depart("b5", h.join("b5"))
		ready := h.ready("b6")
		for time.Since(began) < 345*time.Second {
			for name, id := range map[string]uuid.UUID{"nix-builder-a1-3": joined, "b4": rejected, "b6": ready} {
				h.poll(name, id)
			}
			time.Sleep(15 * time.Second)
		}
		poll := h.polling(t.Context(), "b6", ready, 15*time.Second)
		r := <-result
		if after := time.Since(began); after != 360*time.Second {
			t.Errorf("failed after %v, want 6m", after)
		}
		wantErr(t, "Gathered", r.err, coordinator.ErrFailed)
		var got []string
		for _, b := range r.view.Builders {
			got = append(got, fmt.Sprintf("%s is %s: %s", b.Name, b.State, b.Reason))
		}
		want := []string{
			"nix-builder-a1-1 is lost: silent for 45s, last heard at 00:00:10Z",
			"nix-builder-a1-2 is expected: never checked in",
			"nix-builder-a1-3 is joined: store check: Permission denied (tailscale)",
			"b4 is rejected: its Nix 2.3 is too old",
			"b5 is departed: left as it was told to",
			"b6 is ready: its store answered",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("builders (-want +got):\n%s", diff)
		}
		if want := "after 6m0s 1 of 6 builders were ready, 5 needed"; r.view.Reason != want {
			t.Errorf("reason = %q, want %q", r.view.Reason, want)
		}

		// Those who wait are released, and those who come late too.
		p := <-poll
		if p.err != nil || p.teardown.Phase != coordinator.Failed || p.teardown.Reason != r.view.Reason {
			t.Errorf("poll = %+v, %v; want the teardown of a failed cluster", p.teardown, p.err)
		}
		ticket, created, err := h.CheckIn(t.Context(), node("nix-builder-a1-2"), checkIn("nix-builder-a1-2", joined))
		if err != nil || created || ticket.Phase != coordinator.Failed {
			t.Errorf("late check-in = %+v, %v, %v; want a ticket that says failed", ticket, created, err)
		}
		if _, err := h.poll("nix-builder-a1-2", ticket.ID); err != nil {
			t.Errorf("poll of the late = %v, want a teardown", err)
		}
		wantErr(t, "Verified", h.Verified(ticket.ID, 1, 1), coordinator.ErrFailed)
	})
}
