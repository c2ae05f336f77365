package coordinator_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
)

func TestRelease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, _ := start(t, coordinator.Config{Quorum: 1})
		b1, b2 := h.ready("b1"), h.ready("b2")
		result := make(chan error, 1)
		go func() {
			_, err := h.keep("b2", b2, time.Second)
			result <- err
		}()
		synctest.Wait()
		events := h.Subscribe(h.View().Event, 8)
		defer events.Close()

		_, err := h.Stop(t.Context(), coordinator.StopRequest{Builders: []string{"b2", "b9"}})
		wantErr(t, "Stop of an unknown name", err, coordinator.ErrNotExpected)
		h.wantState("b2", coordinator.StateReady)
		if h.builder("b2").Leaving {
			t.Error("b2 was released although a name was wrong")
		}

		report, err := h.Stop(t.Context(), coordinator.StopRequest{By: "alice", Wait: 30 * time.Second, Builders: []string{"B2", "b3", "b2"}})
		want := coordinator.StopReport{
			Phase: coordinator.Ready, StoppedAt: time.Now().Add(-time.Second).UTC(), Took: time.Second,
			Builders: []coordinator.Released{
				{Name: "b2", State: coordinator.Departed, Reason: "left as it was told to", Left: true, After: took(time.Second)},
				{Name: "b3", State: coordinator.Expected, Reason: "release requested by alice", Left: true},
			},
		}
		if diff := cmp.Diff(want, report); diff != "" || err != nil {
			t.Errorf("%v, report (-want +got):\n%s", err, diff)
		}
		if err := <-result; err != nil {
			t.Error(err)
		}
		for _, want := range []string{"builder.released b2", "builder.released b3", "builder.departed b2"} {
			if e := <-events.C(); string(e.Type)+" "+e.Builder != want {
				t.Errorf("event %s %s, want %s", e.Type, e.Builder, want)
			}
		}
		h.wantPhase(coordinator.Ready)
		h.wantState("b1", coordinator.StateReady)
		_, err = h.poll("b1", b1)
		wantErr(t, "poll of another", err, coordinator.ErrNotYet)

		// Who comes late under the name is released too.
		late := h.join("b3")
		if teardown, err := h.poll("b3", late); err != nil || teardown.Reason != "release requested by alice" {
			t.Errorf("poll of the late = %+v, %v; want its teardown", teardown, err)
		}
		if !h.builder("b3").Leaving {
			t.Error("the late is not leaving")
		}
		wantErr(t, "Verified", h.Verified(late, 1, 1), coordinator.ErrNotJoined)
		_, err = h.Stop(t.Context(), coordinator.StopRequest{Builders: []string{"b3"}, Wait: time.Second})
		wantErr(t, "release again, while it is there", err, coordinator.ErrRemain)
	})
}

func TestReleasedButSilent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, _ := start(t, coordinator.Config{Quorum: 1})
		h.ready("b1")
		report, err := h.Stop(t.Context(), coordinator.StopRequest{Builders: []string{"b1"}, Wait: 2 * time.Minute})
		wantErr(t, "Stop", err, coordinator.ErrRemain)
		if report.Took != coordinator.DefaultLease || report.Builders[0].State != coordinator.Lost || report.Builders[0].Left {
			t.Errorf("report = %+v, want b1 lost and not left", report)
		}
	})
}

func TestRejectedIsAwaited(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, _ := start(t, coordinator.Config{})
		id := h.join("b1")
		if err := h.Reject(id, "no nix"); err != nil {
			t.Fatal(err)
		}
		wantErr(t, "second Reject", h.Reject(id, "no nix"), coordinator.ErrNotJoined)
		if !h.builder("b1").Leaving {
			t.Error("a rejected builder is not leaving")
		}
		_, err := h.Stop(t.Context(), coordinator.StopRequest{Wait: time.Second})
		wantErr(t, "Stop", err, coordinator.ErrRemain)
		before := h.View().Event
		report, err := h.Stop(t.Context(), coordinator.StopRequest{Builders: []string{"b1"}})
		wantErr(t, "Stop of one while all are told", err, coordinator.ErrRemain)
		if len(report.Builders) != 1 || report.StoppedAt.IsZero() || h.View().Event != before {
			t.Errorf("report %+v and %d events, want b1 and none", report, h.View().Event-before)
		}
		go h.keep("b1", id, 0)
		if _, err := h.Stop(t.Context(), coordinator.StopRequest{Wait: time.Second}); err != nil {
			t.Error(err)
		}
	})
}
