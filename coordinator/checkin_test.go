package coordinator_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
)

func TestCheckInTicket(t *testing.T) {
	h := newCluster(t, coordinator.Config{Lease: 30 * time.Second})
	ticket, created, err := h.CheckIn(t.Context(), node("b1"), checkIn("b1", uuid.New()))
	if err != nil || !created {
		t.Fatalf("CheckIn = %v, %v; want a new one", created, err)
	}
	want := coordinator.Ticket{
		ID: ticket.ID, Cluster: clusterID, Name: "b1", Phase: coordinator.Gathering,
		Lease: 30 * time.Second, Poll: 10 * time.Second,
	}
	if diff := cmp.Diff(want, ticket); diff != "" || ticket.ID == uuid.Nil {
		t.Errorf("ticket (-want +got):\n%s", diff)
	}
}

func TestSameInstanceRenews(t *testing.T) {
	h := newCluster(t, coordinator.Config{})
	in := checkIn("b1", uuid.New())
	first, _, err := h.CheckIn(t.Context(), node("b1"), in)
	if err != nil {
		t.Fatal(err)
	}
	before := h.View()
	moved := node("b1")
	moved.Addr = netip.MustParseAddr("100.64.0.2")
	if _, _, err := h.CheckIn(t.Context(), moved, in); err != nil || h.builder("b1").Node != moved {
		t.Errorf("after a repeat from another address, node = %+v, %v", h.builder("b1").Node, err)
	}
	in.Offer.StoreFreeBytes = 1 << 30
	in.Vitals = &coordinator.Vitals{CPUPercent: 12.5, Builds: 2}
	second, created, err := h.CheckIn(t.Context(), node("b1"), in)
	if err != nil || created {
		t.Fatalf("repeat = %v, %v; want a renewal", created, err)
	}
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("ticket (-first +second):\n%s", diff)
	}
	after := h.View()
	if after.Event != before.Event || after.Revision <= before.Revision {
		t.Errorf("event %d to %d, revision %d to %d; want no event and a newer revision",
			before.Event, after.Event, before.Revision, after.Revision)
	}
	b := h.builder("b1")
	if diff := cmp.Diff(&in.Offer, b.Offer); diff != "" {
		t.Errorf("offer (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(in.Vitals, b.Vitals); diff != "" {
		t.Errorf("vitals (-want +got):\n%s", diff)
	}
}

func TestNewInstanceReplaces(t *testing.T) {
	h := newCluster(t, coordinator.Config{})
	instance := uuid.New()
	first := checkIn("b1", instance)
	first.Vitals = &coordinator.Vitals{Builds: 1}
	old, _, err := h.CheckIn(t.Context(), node("b1"), first)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Verified(old.ID, 2, 1); err != nil {
		t.Fatal(err)
	}
	fresh := h.join("b1")
	if fresh == old.ID {
		t.Fatal("a new instance got the old id")
	}
	h.wantState("b1", coordinator.Joined) // its store must answer anew
	if b := h.builder("b1"); b.MaxJobs != 0 || !b.ReadyAt.IsZero() || b.Vitals != nil || b.ID != fresh {
		t.Errorf("builder = %+v, want it new", b)
	}
	_, err = h.poll("b1", old.ID)
	wantErr(t, "poll of the old id", err, coordinator.ErrReplaced)
	_, err = h.poll("b2", old.ID)
	wantErr(t, "poll of another's old id", err, coordinator.ErrNotYours)
	err = h.Depart(t.Context(), node("b1"), old.ID, coordinator.Departure{Reason: coordinator.DepartTeardown})
	wantErr(t, "departure of the old id", err, coordinator.ErrReplaced)
	wantErr(t, "verification of the old id", h.Verified(old.ID, 1, 1), coordinator.ErrReplaced)
	wantErr(t, "rejection of the old id", h.Reject(old.ID, "x"), coordinator.ErrReplaced)
	h.wantState("b1", coordinator.Joined)

	// A replay of the old instance's check-in, late and out of order.
	_, _, err = h.CheckIn(t.Context(), node("b1"), checkIn("b1", instance))
	wantErr(t, "check-in of the replaced instance", err, coordinator.ErrNameHeld)
	if got := h.builder("b1").ID; got != fresh {
		t.Errorf("the holder is %s, want %s still", got, fresh)
	}
}

func TestTakeOver(t *testing.T) {
	for _, state := range states[1:] { // b1 is held
		t.Run(state.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h, _ := start(t, coordinator.Config{Builders: []string{"b1", "b2"}, Quorum: 1, Dispatch: busy{"b1": 1}})
				h.ready("b2")
				old := bring(h, state)
				other := node("b1-1") // the tailnet renamed it: b1's old node is still there
				ticket, created, err := h.CheckIn(context.Background(), other, checkIn("b1", uuid.New()))
				if state != coordinator.Lost && state != coordinator.Departed {
					wantErr(t, "CheckIn", err, coordinator.ErrNameHeld)
					if b := h.builder("b1"); b.ID != old || b.State != state {
						t.Errorf("b1 is %s as %s, want it unharmed", b.State, b.ID)
					}
					return
				}
				if err != nil || !created || ticket.ID == old {
					t.Fatalf("CheckIn = %v, %v, %v; want a new one", ticket.ID, created, err)
				}
				b := h.builder("b1")
				if b.Node != other || b.State != coordinator.Joined || !strings.Contains(b.Reason, "took over from b1") {
					t.Errorf("b1 = %+v", b)
				}
				_, err = h.poll("b1", old)
				wantErr(t, "poll of the former holder", err, coordinator.ErrReplaced)
				_, err = h.poll("b1", ticket.ID)
				wantErr(t, "poll of the new id by the former holder", err, coordinator.ErrNotYours)
			})
		})
	}
}

func TestFormerHolderComesBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, _ := start(t, coordinator.Config{})
		instance := uuid.New()
		in := checkIn("b1", instance)
		if _, _, err := h.CheckIn(t.Context(), node("b1"), in); err != nil {
			t.Fatal(err)
		}
		time.Sleep(coordinator.DefaultLease) // b1 is cut off
		synctest.Wait()
		ticket, _, err := h.CheckIn(t.Context(), node("b1-1"), checkIn("b1", uuid.New()))
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = h.CheckIn(t.Context(), node("b1"), in)
		wantErr(t, "check-in while another node is there", err, coordinator.ErrNameHeld)
		if err := h.Depart(t.Context(), node("b1-1"), ticket.ID, coordinator.Departure{Reason: coordinator.DepartCancelled}); err != nil {
			t.Fatal(err)
		}
		if _, created, err := h.CheckIn(t.Context(), node("b1"), in); err != nil || !created {
			t.Errorf("check-in after the other left = %v, %v; want a new one", created, err)
		}
	})
}

func TestCheckInAfterDeparture(t *testing.T) {
	h := newCluster(t, coordinator.Config{})
	in := checkIn("b1", uuid.New())
	ticket, _, err := h.CheckIn(t.Context(), node("b1"), in)
	if err != nil {
		t.Fatal(err)
	}
	h.depart("b1", ticket.ID)
	before := h.View().Event
	h.depart("b1", ticket.ID) // repeated: changes nothing
	if got := h.View().Event; got != before {
		t.Errorf("a repeated departure made %d events", got-before)
	}
	if teardown, err := h.poll("b1", ticket.ID); err != nil || !strings.Contains(teardown.Reason, "left") {
		t.Errorf("poll after the departure = %+v, %v; want a teardown", teardown, err)
	}
	again, created, err := h.CheckIn(t.Context(), node("b1"), in)
	if err != nil || !created || again.ID == ticket.ID {
		t.Fatalf("CheckIn = %v, %v; want a new id", created, err)
	}
	_, err = h.poll("b1", ticket.ID)
	wantErr(t, "poll of the departed id", err, coordinator.ErrReplaced)
}

func TestCheckInRefused(t *testing.T) {
	h := newCluster(t, coordinator.Config{Builders: []string{"b1", "b2", "B.3"}, Label: sanitize})
	for _, tc := range []struct {
		name string
		node coordinator.Node
		in   func(*coordinator.CheckIn)
		want error
		say  string
	}{
		{"another cluster", node("b1"), func(in *coordinator.CheckIn) { in.Cluster = "octo/repo/1234/2" }, coordinator.ErrWrongCluster, "this is " + clusterID},
		{"an unknown name", node("b9"), func(in *coordinator.CheckIn) { in.Name = "b9" }, coordinator.ErrNotExpected, "check in b9: "},
		{"another's name", node("b2"), nil, coordinator.ErrNotYours, "check in b1: "},
		{"another's name with a suffix", node("b2-1"), nil, coordinator.ErrNotYours, ""},
		{"a name that only begins alike", node("b1x"), nil, coordinator.ErrNotYours, ""},
		{"a suffix that is no number", node("b1-x"), nil, coordinator.ErrNotYours, ""},
		{"no node name", coordinator.Node{ID: "n"}, nil, coordinator.ErrNotYours, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := checkIn("b1", uuid.New())
			if tc.in != nil {
				tc.in(&in)
			}
			before := h.View()
			_, _, err := h.CheckIn(t.Context(), tc.node, in)
			wantErr(t, "CheckIn", err, tc.want)
			if err != nil && !strings.Contains(err.Error(), tc.say) {
				t.Errorf("error %q does not say %q", err, tc.say)
			}
			if got := h.View(); got.Revision != before.Revision {
				t.Error("a refused check-in changed the cluster")
			}
		})
	}
	if ticket, _, err := h.CheckIn(t.Context(), node("b-3"), checkIn("b.3", uuid.New())); err != nil || ticket.Name != "B.3" {
		t.Errorf("check-in by another spelling = %q, %v; want B.3", ticket.Name, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the caller is gone")
	cancel(gone)
	_, _, err := h.CheckIn(ctx, node("b1"), checkIn("b1", uuid.New()))
	wantErr(t, "CheckIn of a caller that is gone", err, gone)
	h.wantState("b1", coordinator.Expected)
}

// sanitize is a small part of what tailnets do to host names.
func sanitize(name string) string {
	return strings.Trim(strings.ReplaceAll(strings.ToLower(name), ".", "-"), "-")
}

func TestUnknownIDs(t *testing.T) {
	h := newCluster(t, coordinator.Config{})
	id := h.join("b1")
	depart := coordinator.Departure{Reason: coordinator.DepartTeardown}
	_, err := h.poll("b1", uuid.New())
	wantErr(t, "poll", err, coordinator.ErrUnknownBuilder)
	_, err = h.poll("b1", uuid.Nil)
	wantErr(t, "poll of the nil id", err, coordinator.ErrUnknownBuilder)
	wantErr(t, "Depart", h.Depart(t.Context(), node("b1"), uuid.New(), depart), coordinator.ErrUnknownBuilder)
	wantErr(t, "Verified", h.Verified(uuid.New(), 1, 1), coordinator.ErrUnknownBuilder)
	wantErr(t, "Reject", h.Reject(uuid.New(), "x"), coordinator.ErrUnknownBuilder)
	h.Note(uuid.New(), "nobody hears this")

	_, err = h.poll("b2", id)
	wantErr(t, "poll of another's id", err, coordinator.ErrNotYours)
	wantErr(t, "departure of another", h.Depart(t.Context(), node("b2"), id, depart), coordinator.ErrNotYours)
	h.wantState("b1", coordinator.Joined)

	var field *coordinator.FieldError
	if err := h.Depart(t.Context(), node("b1"), id, coordinator.Departure{Reason: "bored"}); !errors.As(err, &field) || field.Field != "/reason" {
		t.Errorf("departure for no known reason = %v", err)
	}
	if err := h.Verified(id, 0, 1); err == nil {
		t.Error("a builder was verified with no jobs")
	}
}

func TestFormerIDsAreBounded(t *testing.T) {
	h := newCluster(t, coordinator.Config{})
	ids := []uuid.UUID{h.join("b1")}
	for range 1025 {
		ids = append(ids, h.join("b1"))
	}
	_, err := h.poll("b1", ids[0])
	wantErr(t, "poll of the oldest id", err, coordinator.ErrUnknownBuilder)
	_, err = h.poll("b1", ids[1])
	wantErr(t, "poll of the oldest id that is known", err, coordinator.ErrReplaced)
	_, err = h.poll("b1", ids[1025])
	wantErr(t, "poll of the newest id", err, coordinator.ErrNotYet)
}
