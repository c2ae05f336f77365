package coordinator_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
)

// drain returns the numbers of the events that can be read now.
func drain(s *coordinator.Subscription) (numbers []int64, closed bool) {
	for {
		select {
		case e, ok := <-s.C():
			if !ok {
				return numbers, true
			}
			numbers = append(numbers, e.Number)
		default:
			return numbers, false
		}
	}
}

func TestSubscribe(t *testing.T) {
	h := newCluster(t, coordinator.Config{Events: 4})
	for range 10 {
		h.join("b1") // event 1 to 10; 7 to 10 are kept for sure, 3 or more may be
	}
	for _, tc := range []struct {
		after    int64
		snapshot bool
		want     []int64
	}{
		{-1, true, nil},
		{-1 << 63, true, nil},
		{0, true, nil},
		{1, true, nil},
		{6, false, []int64{7, 8, 9, 10}},
		{9, false, []int64{10}},
		{10, false, nil},
		{11, true, nil},
		{1<<63 - 1, true, nil},
	} {
		s := h.Subscribe(tc.after, 1)
		view, ok := s.Snapshot()
		if ok != tc.snapshot {
			t.Errorf("after %d: snapshot = %v, want %v", tc.after, ok, tc.snapshot)
		}
		if ok && view.Event != 10 {
			t.Errorf("after %d: snapshot at %d, want 10", tc.after, view.Event)
		}
		got, closed := drain(s)
		if diff := cmp.Diff(tc.want, got); diff != "" || closed {
			t.Errorf("after %d: closed %v, events (-want +got):\n%s", tc.after, closed, diff)
		}
		s.Close()
		s.Close()
		if n := h.Subscriptions(); n != 0 {
			t.Errorf("after %d: %d streams are kept", tc.after, n)
		}
		if _, closed := drain(s); !closed || s.Err() != nil {
			t.Errorf("after %d: closed %v with %v, want it ended", tc.after, closed, s.Err())
		}
	}
}

func TestSlowReader(t *testing.T) {
	h := newCluster(t, coordinator.Config{})
	slow, quick := h.Subscribe(0, 2), h.Subscribe(0, 2)
	defer quick.Close()
	var got []int64
	for range 5 {
		h.join("b1")
		numbers, _ := drain(quick)
		got = append(got, numbers...)
	}
	if diff := cmp.Diff([]int64{1, 2, 3, 4, 5}, got); diff != "" || quick.Err() != nil {
		t.Errorf("%v, the quick reader's events (-want +got):\n%s", quick.Err(), diff)
	}
	got, closed := drain(slow)
	if diff := cmp.Diff([]int64{1, 2}, got); diff != "" || !closed {
		t.Errorf("closed %v, the slow reader's events (-want +got):\n%s", closed, diff)
	}
	wantErr(t, "Err", slow.Err(), coordinator.ErrSlow)
	slow.Close()
	wantErr(t, "Err after Close", slow.Err(), coordinator.ErrSlow)

	resumed := h.Subscribe(2, 2)
	defer resumed.Close()
	got, _ = drain(resumed)
	if diff := cmp.Diff([]int64{3, 4, 5}, got); diff != "" {
		t.Errorf("events after resuming (-want +got):\n%s", diff)
	}
}

func TestStreamsEndWithTheStop(t *testing.T) {
	h := newCluster(t, coordinator.Config{})
	id := h.join("b1") // 1
	ends, follows := h.Subscribe(-1, 8), h.Follow(-1, 8)
	defer follows.Close()
	h.Stop(t.Context(), coordinator.StopRequest{}) // 2
	h.depart("b1", id)                             // 3, and 4: stopped
	got, closed := drain(ends)
	if diff := cmp.Diff([]int64{2}, got); diff != "" || !closed || ends.Err() != nil {
		t.Errorf("closed %v with %v, events (-want +got):\n%s", closed, ends.Err(), diff)
	}
	got, closed = drain(follows)
	if diff := cmp.Diff([]int64{2, 3, 4}, got); diff != "" || closed {
		t.Errorf("closed %v, the follower's events (-want +got):\n%s", closed, diff)
	}

	late := h.Subscribe(1, 8)
	got, closed = drain(late)
	if diff := cmp.Diff([]int64{2, 3, 4}, got); diff != "" || !closed {
		t.Errorf("closed %v, the late reader's events (-want +got):\n%s", closed, diff)
	}
	late = h.Subscribe(-1, 8)
	view, ok := late.Snapshot()
	if _, closed := drain(late); !ok || view.Phase != coordinator.Stopped || !closed {
		t.Errorf("a late reader got a snapshot %v of %s, closed %v", ok, view.Phase, closed)
	}
}

// Nobody hears of an event that could be forgotten.
func TestEventsAreSavedFirst(t *testing.T) {
	bubble(t, func(t *testing.T) {
		journal := &memory{delay: time.Second}
		h, _ := start(t, coordinator.Config{Journal: journal})
		s := h.Subscribe(-1, 8)
		defer s.Close()
		began := time.Now()
		go func() {
			if _, _, err := h.CheckIn(context.Background(), node("b1"), checkIn("b1", uuid.New())); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		// One that subscribes now has b1 in its snapshot, and does not get its event.
		snapshot := h.Subscribe(-1, 8)
		defer snapshot.Close()
		if e := <-s.C(); e.Number != 1 || time.Since(began) != time.Second {
			t.Errorf("event %d after %v, want the first once it was saved", e.Number, time.Since(began))
		}
		synctest.Wait()
		view, _ := snapshot.Snapshot()
		if got, _ := drain(snapshot); len(got) != 0 || view.Event != 1 || view.Builders[0].State != coordinator.Joined {
			t.Errorf("events %v after a snapshot at %d that has b1 %s", got, view.Event, view.Builders[0].State)
		}
	})
}

func TestAwait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, _ := start(t, coordinator.Config{})
		id := h.join("b1")
		began := time.Now()
		await := func(after int64, wait time.Duration) (coordinator.View, time.Duration) {
			v := h.Await(context.Background(), after, wait)
			return v, time.Since(began)
		}
		v, after := await(0, time.Minute)
		if after != 0 || v.Revision == 0 {
			t.Errorf("an old revision: %d after %v, want the newest at once", v.Revision, after)
		}
		if got, after := await(v.Revision, 10*time.Second); after != 10*time.Second || got.Revision != v.Revision {
			t.Errorf("nothing new: %d after %v, want %d after 10s", got.Revision, after, v.Revision)
		}
		if _, after := await(v.Revision, 0); after != 10*time.Second {
			t.Errorf("no wait took until %v", after)
		}
		time.AfterFunc(2*time.Second, func() { h.Note(id, "not yet") })
		if got, after := await(v.Revision, time.Minute); after != 12*time.Second || got.Builders[0].Reason != "not yet" {
			t.Errorf("a note: %q after %v", got.Builders[0].Reason, after)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		h.Await(ctx, 1<<40, time.Minute)
		if after := time.Since(began); after != 13*time.Second {
			t.Errorf("a caller that is gone was answered after %v", after)
		}
		// A stop ends every query, whatever revision it has.
		time.AfterFunc(2*time.Second, func() { h.Stop(context.Background(), coordinator.StopRequest{}) })
		if got, after := await(1<<40, time.Minute); after != 15*time.Second || got.Phase != coordinator.Stopping {
			t.Errorf("a stop: %s after %v", got.Phase, after)
		}
		// A query during the stop sees the departures.
		time.AfterFunc(2*time.Second, func() { h.depart("b1", id) })
		if got, after := await(h.View().Revision, time.Minute); after != 17*time.Second || got.Phase != coordinator.Stopped {
			t.Errorf("a departure: %s after %v", got.Phase, after)
		}
	})
}
