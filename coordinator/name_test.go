package coordinator_test

import (
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
)

func TestMatchName(t *testing.T) {
	for _, tc := range []struct {
		expected, node string
		want           bool
	}{
		{"b1", "b1", true},
		{"b1", "b1-1", true},
		{"b1", "b1-10", true},
		{"b1", "b1-1234567890123456789012345", true},
		{"b1", "b1-0", false},
		{"b1", "b1-01", false},
		{"b1", "b1-", false},
		{"b1", "b1--1", false},
		{"b1", "b1-1-1", false},
		{"b1", "b1-+1", false},
		{"b1", "b1-1 ", false},
		{"b1", "b1-١", false},
		{"b1", "b10", false},
		{"b1", "b2", false},
		{"b1", "b", false},
		{"b1", "", false},
		{"", "", false},
		{"", "-1", false},
		{"nix-builder-a1-ubuntu-24-04-1", "nix-builder-a1-ubuntu-24-04-1-2", true},
	} {
		if got := coordinator.MatchName(tc.expected, tc.node); got != tc.want {
			t.Errorf("MatchName(%q, %q) = %v, want %v", tc.expected, tc.node, got, tc.want)
		}
	}
}

// A node that is called as another expected builder is that one, unless another node
// holds that name.
func TestAmbiguousName(t *testing.T) {
	claim := func(h *harness, nodeName, name string) error {
		_, _, err := h.CheckIn(t.Context(), node(nodeName), checkIn(name, uuid.New()))
		return err
	}
	builders := []string{"b", "b-1"}

	h := newCluster(t, coordinator.Config{Builders: builders})
	wantErr(t, "b-1 claims b", claim(h, "b-1", "b"), coordinator.ErrNotYours)
	wantErr(t, "b-1 claims b-1", claim(h, "b-1", "b-1"), nil)
	wantErr(t, "b-1 claims b and holds b-1", claim(h, "b-1", "b"), coordinator.ErrNotYours)
	wantErr(t, "b claims b", claim(h, "b", "b"), nil)

	// b was taken when the first came up, so that it became b-1, and the second b-1-1.
	h = newCluster(t, coordinator.Config{Builders: builders})
	wantErr(t, "b-1-1 claims b-1", claim(h, "b-1-1", "b-1"), nil)
	wantErr(t, "b-1 claims b", claim(h, "b-1", "b"), nil)
	wantErr(t, "b-1-1 claims b", claim(h, "b-1-1", "b"), coordinator.ErrNotYours)

	bubble(t, func(t *testing.T) { // the holder of b-1 may come back
		h, _ := start(t, coordinator.Config{Builders: builders})
		wantErr(t, "b-1-1 claims b-1", claim(h, "b-1-1", "b-1"), nil)
		time.Sleep(coordinator.DefaultLease)
		synctest.Wait()
		h.wantState("b-1", coordinator.Lost)
		wantErr(t, "b-1 claims b", claim(h, "b-1", "b"), nil)
	})
}

func FuzzMatchName(f *testing.F) {
	for _, seed := range [][2]string{{"b1", "b1"}, {"b1", "b1-1"}, {"b1", "b1-01"}, {"", ""}, {"b", "b-1-1"}, {"b-1", "b"}} {
		f.Add(seed[0], seed[1])
	}
	count := regexp.MustCompile(`^-[1-9][0-9]*$`)
	f.Fuzz(func(t *testing.T, expected, node string) {
		rest, ok := strings.CutPrefix(node, expected)
		want := expected != "" && ok && (rest == "" || count.MatchString(rest))
		if got := coordinator.MatchName(expected, node); got != want {
			t.Errorf("MatchName(%q, %q) = %v, want %v", expected, node, got, want)
		}
	})
}

// No node gets a place by a name that is another's, whatever the names are.
func FuzzClaim(f *testing.F) {
	f.Add("b", "b-1", "b-1", "b")
	f.Add("b1", "b2", "b2", "b1")
	f.Add("b.1", "b", "b-1", "b")
	f.Fuzz(func(t *testing.T, one, two, caller, claim string) {
		c, err := coordinator.New(coordinator.Config{ID: clusterID, Builders: []string{one, two}, Label: sanitize})
		if err != nil {
			return
		}
		ticket, created, err := c.CheckIn(t.Context(), node(caller), checkIn(claim, uuid.New()))
		if err != nil {
			if created || ticket != (coordinator.Ticket{}) {
				t.Errorf("a refused check-in got %+v", ticket)
			}
			return
		}
		if sanitize(ticket.Name) != sanitize(claim) || !strings.HasPrefix(strings.ToLower(caller), sanitize(claim)) {
			t.Errorf("%q got the place of %q by the claim %q", caller, ticket.Name, claim)
		}
		if other := map[string]string{one: two, two: one}[ticket.Name]; sanitize(other) == strings.ToLower(caller) {
			t.Errorf("%q got the place of %q although it is %q", caller, ticket.Name, other)
		}
	})
}
