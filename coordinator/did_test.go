package coordinator_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
)

// tell repeats the check-in with vitals.
func (h *harness) tell(in coordinator.CheckIn, v *coordinator.Vitals) coordinator.Ticket {
	h.t.Helper()
	in.Vitals = v
	ticket, _, err := h.CheckIn(h.t.Context(), node(in.Name), in)
	if err != nil {
		h.t.Fatal(err)
	}
	return ticket
}

// What is known of a builder's work only grows, in whatever order it is told, until a new
// instance begins anew.
func TestWhatABuilderDidOnlyGrows(t *testing.T) {
	h := newCluster(t, coordinator.Config{})
	in := checkIn("b1", uuid.New())
	none := &coordinator.Vitals{CPUPercent: 50, MemoryFreeBytes: 8 << 30}
	for _, step := range []struct{ told, want *coordinator.Vitals }{
		{nil, nil},
		{none, none},
		{did(2, 60), did(2, 60)},
		{did(4, 180), did(4, 180)},
		{did(2, 60), did(4, 180)}, // late
		{did(1, 200), did(4, 200)},
		{none, did(4, 200)},
		{nil, did(4, 200)},
	} {
		h.tell(in, step.told)
		if diff := cmp.Diff(step.want, h.builder("b1").Vitals); diff != "" {
			t.Errorf("told %+v (-want +got):\n%s", step.told, diff)
		}
	}
	h.tell(checkIn("b1", uuid.New()), did(0, 0))
	if diff := cmp.Diff(did(0, 0), h.builder("b1").Vitals); diff != "" {
		t.Errorf("of the new instance (-want +got):\n%s", diff)
	}
}

// A departure tells the last of it, which stays, over restarts too. Nothing is told twice.
func TestWhatABuilderDidOutlivesIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := coordinator.Config{Journal: &memory{}, Builders: []string{"departs", "lost", "quiet"}}
		h, end := start(t, cfg)
		departs := h.tell(checkIn("departs", uuid.New()), did(2, 60)).ID
		h.tell(checkIn("lost", uuid.New()), did(3, 30))
		quiet := h.tell(checkIn("quiet", uuid.New()), did(1, 10)).ID
		depart := func(name string, id uuid.UUID, v *coordinator.Vitals) {
			t.Helper()
			d := coordinator.Departure{Reason: coordinator.DepartTeardown, Vitals: v}
			if err := h.Depart(t.Context(), node(name), id, d); err != nil {
				t.Fatal(err)
			}
		}
		depart("departs", departs, did(4, 71.5))
		depart("departs", departs, did(9, 99)) // a repeat changes nothing
		depart("quiet", quiet, nil)
		time.Sleep(coordinator.DefaultLease)
		synctest.Wait()
		h.wantState("lost", coordinator.Lost)

		check := func(when string) {
			t.Helper()
			for name, want := range map[string]*coordinator.Vitals{
				"departs": did(4, 71.5), "lost": did(3, 30), "quiet": did(1, 10),
			} {
				if diff := cmp.Diff(want, h.builder(name).Vitals); diff != "" {
					t.Errorf("%s, %s (-want +got):\n%s", name, when, diff)
				}
			}
		}
		check("when they are gone")
		end()
		h, _ = start(t, cfg)
		check("after a restart")
	})
}

// Vitals by themselves are no reason to write the journal: 256 builders tell them each
// minute.
func TestVitalsAreNotSavedAlone(t *testing.T) {
	journal := &memory{}
	h := newCluster(t, coordinator.Config{Journal: journal})
	in := checkIn("b1", uuid.New())
	h.tell(in, did(0, 0))
	before := string(journal.data)
	h.tell(in, did(1, 1))
	if string(journal.data) != before {
		t.Error("new vitals were saved")
	}
	h.join("b2")
	record, _, err := journal.Load()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(did(1, 1), record.Slots[0].Vitals); diff != "" {
		t.Errorf("saved along with what mattered (-want +got):\n%s", diff)
	}
}

// What a builder says of itself and what Nix was told are both shown, and both saved.
func TestOwnJobsAndSpeed(t *testing.T) {
	cfg := coordinator.Config{Journal: &memory{}}
	h := newCluster(t, cfg)
	in := checkIn("b1", uuid.New())
	in.Offer.MaxJobs, in.Offer.SpeedFactor = new(1), new(4)
	id := h.tell(in, nil).ID
	if b := h.builder("b1"); b.MaxJobs != 0 || b.SpeedFactor != 0 || *b.Offer.MaxJobs != 1 || *b.Offer.SpeedFactor != 4 {
		t.Errorf("before Nix was told: %+v", b)
	}
	for _, bad := range [][2]int{{0, 1}, {1, 0}, {-1, -1}} {
		if err := h.Verified(id, bad[0], bad[1]); err == nil {
			t.Errorf("%d jobs and speed %d were taken", bad[0], bad[1])
		}
	}
	for _, told := range [][2]int{{1, 4}, {1, 5}, {2, 5}} {
		revision := h.View().Revision
		for range 2 { // the repeat is no change
			if err := h.Verified(id, told[0], told[1]); err != nil {
				t.Fatal(err)
			}
		}
		if b := h.builder("b1"); b.MaxJobs != told[0] || b.SpeedFactor != told[1] || h.View().Revision != revision+1 {
			t.Errorf("told %v: %d jobs, speed %d, revision %d after %d", told, b.MaxJobs, b.SpeedFactor, h.View().Revision, revision)
		}
	}
	h = newCluster(t, cfg)
	if b := h.builder("b1"); b.MaxJobs != 2 || b.SpeedFactor != 5 || *b.Offer.SpeedFactor != 4 {
		t.Errorf("after a restart: %d jobs, speed %d, offer %+v", b.MaxJobs, b.SpeedFactor, b.Offer)
	}
	h.join("b1")
	if b := h.builder("b1"); b.MaxJobs != 0 || b.SpeedFactor != 0 || b.Offer.MaxJobs != nil {
		t.Errorf("a new instance has %d jobs and speed %d", b.MaxJobs, b.SpeedFactor)
	}
}
