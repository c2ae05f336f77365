package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
)

func took(d time.Duration) *time.Duration { return &d }

func TestStop(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, _ := start(t, coordinator.Config{Builders: []string{"b1", "b2", "b3", "b4"}})
		go h.keep("b1", h.ready("b1"), 100*time.Millisecond)
		go h.keep("b2", h.join("b2"), 300*time.Millisecond)
		h.depart("b3", h.join("b3"))
		synctest.Wait()
		report, err := h.Stop(t.Context(), coordinator.StopRequest{By: "post step", Wait: 30 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		want := coordinator.StopReport{
			Phase: coordinator.Stopped, StoppedAt: h.View().Since.Add(-300 * time.Millisecond), Took: 300 * time.Millisecond,
			Builders: []coordinator.Released{
				{Name: "b1", State: coordinator.Departed, Reason: "left as it was told to", Left: true, After: took(100 * time.Millisecond)},
				{Name: "b2", State: coordinator.Departed, Reason: "left as it was told to", Left: true, After: took(300 * time.Millisecond)},
				{Name: "b3", State: coordinator.Departed, Reason: "left as it was told to", Left: true},
				{Name: "b4", State: coordinator.Expected, Reason: "never checked in", Left: true},
			},
		}
		if diff := cmp.Diff(want, report); diff != "" {
			t.Errorf("report (-want +got):\n%s", diff)
		}
		if v := h.View(); v.Reason != "all builders have left" {
			t.Errorf("reason = %q", v.Reason)
		}
		again, err := h.Stop(t.Context(), coordinator.StopRequest{Wait: 30 * time.Second})
		want.Took = 0
		if diff := cmp.Diff(want, again); diff != "" || err != nil {
			t.Errorf("stop of a stopped cluster: %v (-want +got):\n%s", err, diff)
		}
	})
}

// The order of a stop, as its parts see it.
func TestStopOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var s script
		var h *harness
		journal := &memory{onSave: func(r coordinator.Record) {
			if r.Phase == coordinator.Stopping && !r.Restored {
				time.Sleep(time.Second) // so that what does not wait for the save shows
				s.add("saved")
			}
		}}
		h, _ = start(t, coordinator.Config{Builders: []string{"b1"}, Journal: journal, Dispatch: dispatch{
			close: func(context.Context) error {
				s.add("close in " + h.View().Phase.String())
				return nil
			},
			restore: func(context.Context) error {
				synctest.Wait()
				s.add("restore in " + h.View().Phase.String())
				return nil
			},
		}})
		id := h.ready("b1")
		before := h.View()
		events := h.Subscribe(before.Event, 4)
		go func() {
			h.AwaitTeardown(context.Background(), node("b1"), id, 15*time.Second)
			s.add("told")
		}()
		go func() {
			h.Await(context.Background(), before.Revision+1000, time.Minute)
			s.add("told")
		}()
		go func() {
			for e := range events.C() {
				if e.Type != coordinator.ClusterStopping {
					t.Errorf("event %s", e.Type)
				}
			}
			s.add("told")
		}()
		synctest.Wait()
		_, err := h.Stop(t.Context(), coordinator.StopRequest{Wait: time.Second})
		wantErr(t, "Stop", err, coordinator.ErrRemain)
		if !strings.Contains(err.Error(), "b1 (ready, silent for") {
			t.Errorf("error %q does not say who remains", err)
		}
		const want = "close in ready\nsaved\ntold\ntold\ntold\nrestore in stopping"
		if diff := cmp.Diff(want, s.String()); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
		h.wantPhase(coordinator.Stopping)
		h.depart("b1", id)
		h.wantPhase(coordinator.Stopped)
		if _, err := h.Stop(t.Context(), coordinator.StopRequest{Wait: time.Second}); err != nil {
			t.Errorf("Stop after all have left = %v", err)
		}
	})
}

func TestStopWithLostBuilders(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, _ := start(t, coordinator.Config{})
		h.ready("b1")
		time.Sleep(time.Minute)
		synctest.Wait() // b1 is lost before the stop
		h.ready("b2")   // b2 dies and never polls
		id := h.ready("b3")
		time.Sleep(5 * time.Second)
		go h.keep("b3", id, 0)
		synctest.Wait()
		began := time.Now()
		report, err := h.Stop(t.Context(), coordinator.StopRequest{Wait: 5 * time.Minute})
		wantErr(t, "Stop", err, coordinator.ErrRemain)
		// It does not wait for b2 longer than b2's lease.
		if after := time.Since(began); after != 40*time.Second {
			t.Errorf("Stop took %v, want 40s", after)
		}
		want := []coordinator.Released{
			{Name: "b1", State: coordinator.Lost, Reason: "silent for 45s, last heard at 00:00:00Z", Left: true},
			{Name: "b2", State: coordinator.Lost, Reason: "silent for 45s, last heard at 00:01:00Z", Left: false},
			{Name: "b3", State: coordinator.Departed, Reason: "left as it was told to", Left: true, After: took(0)},
		}
		if diff := cmp.Diff(want, report.Builders); diff != "" {
			t.Errorf("report (-want +got):\n%s", diff)
		}
		if report.Phase != coordinator.Stopped || h.View().Reason != "one builder fell silent without leaving" {
			t.Errorf("phase %s, reason %q", report.Phase, h.View().Reason)
		}
		// It stays missed, until it is heard after all.
		_, err = h.Stop(t.Context(), coordinator.StopRequest{Wait: time.Minute})
		wantErr(t, "second Stop", err, coordinator.ErrRemain)
		b2 := h.builder("b2").ID
		teardown, err := h.poll("b2", b2)
		if err != nil || teardown.Phase != coordinator.Stopped || teardown.Reason != "stop requested" {
			t.Errorf("poll of the late = %+v, %v", teardown, err)
		}
		h.depart("b2", b2)
		if _, err := h.Stop(t.Context(), coordinator.StopRequest{Wait: time.Minute}); err != nil {
			t.Errorf("Stop after all have left = %v", err)
		}
	})
}

func TestLateBuilderIsReleased(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, _ := start(t, coordinator.Config{})
		if _, err := h.Stop(t.Context(), coordinator.StopRequest{}); err != nil {
			t.Fatal(err)
		}
		ticket, created, err := h.CheckIn(t.Context(), node("b1"), checkIn("b1", uuid.New()))
		if err != nil || created || ticket.Phase != coordinator.Stopped {
			t.Fatalf("CheckIn = %+v, %v, %v; want a ticket that says stopped", ticket, created, err)
		}
		wantErr(t, "Verified", h.Verified(ticket.ID, 1, 1), coordinator.ErrStopping)
		_, err = h.Stop(t.Context(), coordinator.StopRequest{})
		wantErr(t, "Stop with a late builder there", err, coordinator.ErrRemain)
		go h.keep("b1", ticket.ID, 2*time.Second)
		report, err := h.Stop(t.Context(), coordinator.StopRequest{Wait: 5 * time.Second})
		if err != nil || report.Took != 2*time.Second || !report.Builders[0].Left {
			t.Errorf("Stop = %+v, %v; want it to wait for the late", report, err)
		}
	})
}

func TestConcurrentStops(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var s script
		h, _ := start(t, coordinator.Config{Dispatch: dispatch{
			close:   func(context.Context) error { time.Sleep(2 * time.Second); s.add("close"); return nil },
			restore: func(context.Context) error { s.add("restore"); return nil },
		}})
		go h.keep("b1", h.join("b1"), 3*time.Second) // leaves 5 s after the stops
		synctest.Wait()
		before := h.View().Event
		type result struct {
			report coordinator.StopReport
			err    error
		}
		results := make(map[time.Duration]chan result)
		for _, wait := range []time.Duration{10 * time.Second, time.Second, 4 * time.Second, 0} {
			results[wait] = make(chan result, 1)
			go func() {
				report, err := h.Stop(context.Background(), coordinator.StopRequest{Wait: wait})
				results[wait] <- result{report, err}
			}()
			synctest.Wait()
		}
		for wait, want := range map[time.Duration]struct {
			took time.Duration
			err  error
		}{
			0:                {0, coordinator.ErrRemain},
			time.Second:      {time.Second, coordinator.ErrRemain},
			4 * time.Second:  {4 * time.Second, coordinator.ErrRemain},
			10 * time.Second: {5 * time.Second, nil},
		} {
			r := <-results[wait]
			wantErr(t, fmt.Sprintf("Stop that waits %v", wait), r.err, want.err)
			if r.report.Took != want.took {
				t.Errorf("a stop that waits %v took %v, want %v", wait, r.report.Took, want.took)
			}
			if left := r.report.Builders[0].Left; left != (want.err == nil) {
				t.Errorf("a stop that waits %v says b1 left = %v", wait, left)
			}
		}
		if got := s.String(); got != "close\nrestore" {
			t.Errorf("dispatch was called: %q", got)
		}
		if got := h.View().Event - before; got != 3 { // stopping, departed, stopped
			t.Errorf("%d events, want 3", got)
		}
	})
}

func TestStopIsCarriedThrough(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var s script
		h, _ := start(t, coordinator.Config{Dispatch: dispatch{
			close:   func(ctx context.Context) error { time.Sleep(time.Second); s.add("close"); return ctx.Err() },
			restore: func(ctx context.Context) error { time.Sleep(time.Second); s.add("restore"); return ctx.Err() },
		}})
		h.join("b1")
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("curl was interrupted")
		time.AfterFunc(time.Second/2, func() { cancel(gone) })
		report, err := h.Stop(ctx, coordinator.StopRequest{Wait: time.Minute})
		wantErr(t, "Stop", err, gone)
		if s.String() != "close\nrestore" || len(report.Faults) != 0 || report.Took != 2*time.Second {
			t.Errorf("calls %q, report %+v; want the stop carried through, and no wait", s.String(), report)
		}
		h.wantPhase(coordinator.Stopping)
	})
}

func TestFaultsDoNotHoldTheStop(t *testing.T) {
	bubble(t, func(t *testing.T) {
		journal := &memory{}
		hang, restored := make(chan struct{}), false
		h, _ := start(t, coordinator.Config{Journal: journal, DispatchTimeout: 3 * time.Second, Dispatch: dispatch{
			close: func(context.Context) error { <-hang; return nil }, // deaf to its context
			restore: func(context.Context) error {
				if !restored {
					return errors.New("/etc/nix/nix.conf is read-only")
				}
				return nil
			},
		}})
		poll := h.polling(t.Context(), "b1", h.ready("b1"), 15*time.Second)
		journal.setErr(errors.New("no space left on device"))
		report, err := h.Stop(t.Context(), coordinator.StopRequest{Wait: 10 * time.Second})
		wantErr(t, "Stop", err, coordinator.ErrRemain)
		if r := <-poll; r.err != nil || r.after != 3*time.Second {
			t.Errorf("poll ended with %v after %v, want a teardown after 3s", r.err, r.after)
		}
		want := []string{
			"stop dispatching builds: not done within 3s",
			"save the cluster's state: no space left on device",
			"restore the host's files: /etc/nix/nix.conf is read-only",
		}
		if diff := cmp.Diff(want, report.Faults); diff != "" {
			t.Errorf("faults (-want +got):\n%s", diff)
		}
		// What failed is tried again.
		close(hang)
		restored = true
		journal.setErr(nil)
		h.depart("b1", h.builder("b1").ID)
		report, err = h.Stop(t.Context(), coordinator.StopRequest{})
		if diff := cmp.Diff(want[:1], report.Faults); diff != "" || err != nil {
			t.Errorf("second stop: %v, faults (-want +got):\n%s", err, diff)
		}
		record, ok, err := journal.Load()
		if !ok || err != nil || record.Phase != coordinator.Stopped || !record.Restored {
			t.Errorf("saved %s, restored %v, %v; want all of it", record.Phase, record.Restored, err)
		}
	})
}
