package coordinator_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
)

func TestViewIsACopy(t *testing.T) {
	h := newCluster(t, coordinator.Config{})
	in := checkIn("b1", uuid.New())
	in.Vitals = &coordinator.Vitals{Builds: 1, PeakBuilds: new(1), BusySeconds: new(1.0)}
	in.Offer.MaxJobs, in.Offer.SpeedFactor = new(1), new(1)
	if _, _, err := h.CheckIn(t.Context(), node("b1"), in); err != nil {
		t.Fatal(err)
	}
	spoil := func(o *coordinator.Offer, v *coordinator.Vitals) {
		o.Systems[0], o.Features[0], o.HostKeys[0], o.Cores, v.Builds = "x", "x", "x", 99, 99
		*o.MaxJobs, *o.SpeedFactor, *v.PeakBuilds, *v.BusySeconds = 99, 99, 99, 99
	}
	spoil(&in.Offer, in.Vitals)
	b := h.builder("b1")
	spoil(b.Offer, b.Vitals)
	b = h.builder("b1")
	want := offer()
	want.MaxJobs, want.SpeedFactor = new(1), new(1)
	if diff := cmp.Diff(want, *b.Offer); diff != "" || b.Vitals.Builds != 1 || *b.Vitals.PeakBuilds != 1 || *b.Vitals.BusySeconds != 1 {
		t.Errorf("offer (-want +got):\n%s\nvitals %+v", diff, b.Vitals)
	}
}

func TestNote(t *testing.T) {
	h := newCluster(t, coordinator.Config{})
	id := h.join("b1")
	before := h.View()
	h.Note(id, "store check:\r\n\tpermission\x1b[31m denied\n")
	const want = "store check: permission [31m denied"
	if b := h.builder("b1"); b.Reason != want {
		t.Errorf("reason = %q, want %q", b.Reason, want)
	}
	after := h.View()
	if after.Revision <= before.Revision || after.Event != before.Event {
		t.Errorf("a note took revision %d to %d and event %d to %d", before.Revision, after.Revision, before.Event, after.Event)
	}
	h.Note(id, "store check: permission [31m denied")
	if got := h.View(); got.Revision != after.Revision {
		t.Error("the same note again is a change")
	}
	if err := h.Verified(id, 1, 1); err != nil {
		t.Fatal(err)
	}
	if b := h.builder("b1"); b.Reason != "its store answered" {
		t.Errorf("reason = %q, want the note gone", b.Reason)
	}
	h.Note(id, "too late")
	if b := h.builder("b1"); b.Reason != "its store answered" {
		t.Errorf("reason = %q, want a late note ignored", b.Reason)
	}
	id = h.join("b2")
	h.Note(id, strings.Repeat("ü", 5000))
	if got := len(h.builder("b2").Reason); got > 2100 {
		t.Errorf("a long note has %d bytes", got)
	}
}
