package coordinator_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
)

func TestRestartWhileReady(t *testing.T) {
	bubble(t, func(t *testing.T) {
		journal := &memory{}
		cfg := coordinator.Config{Journal: journal, Quorum: 1}
		h, end := start(t, cfg)
		instance := uuid.New()
		in := checkIn("b1", instance)
		in.Vitals = &coordinator.Vitals{Builds: 1}
		replaced := h.join("b1")
		ticket, _, err := h.CheckIn(t.Context(), node("b1"), in)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Verified(ticket.ID, 3, 1); err != nil {
			t.Fatal(err)
		}
		h.join("b2")
		h.depart("b3", h.join("b3"))
		for range 10 { // revisions that are not saved
			h.Note(h.builder("b2").ID, uuid.NewString())
		}
		h.Note(h.builder("b2").ID, "")
		before := h.View()
		end()

		time.Sleep(time.Hour) // the wall clock moves on; leases don't
		h, _ = start(t, cfg)
		after := h.View()
		if after.Revision <= before.Revision {
			t.Errorf("revision %d after %d", after.Revision, before.Revision)
		}
		if diff := cmp.Diff(before, after, cmpopts.EquateComparable(netip.Addr{}),
			cmpopts.IgnoreFields(coordinator.View{}, "Revision")); diff != "" {
			t.Errorf("the cluster (-before +after):\n%s", diff)
		}

		again, created, err := h.CheckIn(t.Context(), node("b1"), in)
		if err != nil || created || again.ID != ticket.ID {
			t.Errorf("the same instance = %v, %v, %v; want its id %v", again.ID, created, err, ticket.ID)
		}
		h.wantState("b1", coordinator.StateReady)
		_, err = h.poll("b1", replaced)
		wantErr(t, "poll of a replaced id", err, coordinator.ErrReplaced)

		s := h.Subscribe(before.Event, 8)
		defer s.Close()
		if _, ok := s.Snapshot(); ok {
			t.Error("a reader that has all events got a snapshot")
		}
		old := h.Subscribe(before.Event-1, 8)
		defer old.Close()
		if _, ok := old.Snapshot(); !ok {
			t.Error("a reader that missed an event of the last process got no snapshot")
		}
		h.join("b2")
		if e := <-s.C(); e.Number != before.Event+1 {
			t.Errorf("event %d after %d", e.Number, before.Event)
		}

		time.Sleep(coordinator.DefaultLease)
		synctest.Wait()
		h.wantState("b1", coordinator.Lost) // leases run in this process too
	})
}

func TestStopSurvivesRestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var s script
		restoreErr := errors.New("killed")
		journal := &memory{}
		cfg := coordinator.Config{Journal: journal, Dispatch: dispatch{
			close:   func(context.Context) error { s.add("close"); return nil },
			restore: func(context.Context) error { s.add("restore"); return restoreErr },
		}}
		h, end := start(t, cfg)
		b1, b2 := h.ready("b1"), h.ready("b2")
		_, err := h.Stop(t.Context(), coordinator.StopRequest{By: "tester"})
		wantErr(t, "Stop", err, coordinator.ErrRemain)
		h.depart("b1", b1)
		end()

		restoreErr = nil
		time.Sleep(time.Hour)
		h, end = start(t, cfg)
		synctest.Wait()
		h.wantPhase(coordinator.Stopping)
		if got := s.String(); got != "close\nrestore\nrestore" { // what the first could not do
			t.Errorf("dispatch was called: %q", got)
		}
		teardown, err := h.poll("b2", b2)
		if err != nil || teardown.Reason != "stop requested by tester" || teardown.Phase != coordinator.Stopping {
			t.Errorf("poll = %+v, %v; want the teardown", teardown, err)
		}
		go h.keep("b2", b2, time.Second)
		report, err := h.Stop(t.Context(), coordinator.StopRequest{Wait: time.Minute})
		if err != nil || report.Took != time.Second || !report.Builders[0].Left || report.Builders[0].After == nil {
			t.Errorf("Stop = %+v, %v", report, err)
		}
		end()

		h, _ = start(t, cfg)
		synctest.Wait()
		h.wantPhase(coordinator.Stopped)
		if got := s.String(); got != "close\nrestore\nrestore" {
			t.Errorf("dispatch was called: %q", got)
		}
		late := h.join("b3")
		if teardown, err := h.poll("b3", late); err != nil || teardown.Reason != "stop requested by tester" {
			t.Errorf("poll of the late = %+v, %v; want the teardown", teardown, err)
		}
	})
}

// A process that is killed right after it saved its stop: nobody is there, and the
// next one ends it.
func TestRestartInTheMiddleOfAStop(t *testing.T) {
	bubble(t, func(t *testing.T) {
		journal := &memory{}
		h := newCluster(t, coordinator.Config{Journal: journal})
		h.depart("b1", h.join("b1"))
		record, _, err := journal.Load()
		if err != nil {
			t.Fatal(err)
		}
		record.Phase, record.Reason, record.StopReason, record.StoppedAt = coordinator.Stopping, "stop requested", "stop requested", time.Now()
		if journal.data, err = json.Marshal(record); err != nil {
			t.Fatal(err)
		}
		h, _ = start(t, coordinator.Config{Journal: journal})
		synctest.Wait()
		h.wantPhase(coordinator.Stopped)
		record, _, _ = journal.Load()
		if record.Phase != coordinator.Stopped || !record.Restored {
			t.Errorf("saved %s, restored %v", record.Phase, record.Restored)
		}
	})
}

func TestFailedSurvivesRestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := coordinator.Config{Journal: &memory{}}
		_, end := start(t, cfg)
		time.Sleep(coordinator.DefaultGatherTimeout)
		synctest.Wait()
		end()
		h, _ := start(t, cfg)
		h.wantPhase(coordinator.Failed)
		_, err := h.Gathered(t.Context())
		wantErr(t, "Gathered", err, coordinator.ErrFailed)
		if _, err := h.poll("b1", h.join("b1")); err != nil {
			t.Errorf("poll = %v, want a teardown", err)
		}
	})
}

func TestRestartWithOtherBuilders(t *testing.T) {
	journal := &memory{}
	h := newCluster(t, coordinator.Config{Journal: journal})
	b1, b2 := h.ready("b1"), h.ready("b2")
	h = newCluster(t, coordinator.Config{Journal: journal, Builders: []string{"b2", "b4"}})
	_, err := h.poll("b1", b1)
	wantErr(t, "poll of a builder that is expected no more", err, coordinator.ErrUnknownBuilder)
	_, err = h.poll("b2", b2)
	wantErr(t, "poll", err, coordinator.ErrNotYet)
	h.wantState("b2", coordinator.StateReady)
	h.wantState("b4", coordinator.Expected)
}

func TestRecordRefused(t *testing.T) {
	for _, tc := range []struct {
		change func(*coordinator.Record)
		say    string
	}{
		{func(r *coordinator.Record) { r.ID = "octo/other/1/1" }, "octo/other/1/1"},
		{func(r *coordinator.Record) { r.Version = 2 }, "version 2"},
	} {
		journal := &memory{}
		newCluster(t, coordinator.Config{Journal: journal}).join("b1")
		record, _, err := journal.Load()
		if err != nil {
			t.Fatal(err)
		}
		tc.change(&record)
		if journal.data, err = json.Marshal(record); err != nil {
			t.Fatal(err)
		}
		_, err = coordinator.New(coordinator.Config{ID: clusterID, Builders: []string{"b1"}, Journal: journal})
		if err == nil || !strings.Contains(err.Error(), tc.say) {
			t.Errorf("New = %v, want an error that says %s", err, tc.say)
		}
	}
	_, err := coordinator.New(coordinator.Config{ID: clusterID, Builders: []string{"b1"}, Journal: &memory{data: []byte("{")}})
	if err == nil || !strings.Contains(err.Error(), "load its state") {
		t.Errorf("New = %v, want an error about its state", err)
	}
}

// Calls that come while a save runs share the next one.
func TestGroupCommit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		builders := make([]string, 100)
		for i := range builders {
			builders[i] = "b" + strings.Repeat("x", i)
		}
		journal := &memory{delay: time.Second}
		h, _ := start(t, coordinator.Config{Builders: builders, Journal: journal})
		began := time.Now()
		done := make(chan struct{})
		for _, name := range builders {
			go func() { h.join(name); done <- struct{}{} }()
		}
		for range builders {
			<-done
		}
		if after := time.Since(began); after != 2*time.Second || journal.saves != 2 {
			t.Errorf("100 check-ins took %v and %d saves, want 2s and 2", after, journal.saves)
		}
		record, _, err := journal.Load()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range record.Slots {
			if s.State != coordinator.Joined {
				t.Errorf("%s was answered and is saved as %s", s.Name, s.State)
			}
		}
	})
}

// Vitals don't cost a save each, and revisions grow over restarts all the same.
func TestRevisionsInReserve(t *testing.T) {
	journal := &memory{}
	h := newCluster(t, coordinator.Config{Journal: journal})
	in := checkIn("b1", uuid.New())
	for i := range 20_000 {
		in.Vitals = &coordinator.Vitals{Builds: i}
		if _, _, err := h.CheckIn(t.Context(), node("b1"), in); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 0 {
			before := h.View().Revision
			record, _, err := journal.Load()
			if err != nil || record.Revision < before {
				t.Fatalf("revision %d was shown, and %d is saved: %v", before, record.Revision, err)
			}
		}
	}
	if journal.saves > 10 {
		t.Errorf("%d saves", journal.saves)
	}
}
