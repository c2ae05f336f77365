package coordinator_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
)

// fit are vitals of a builder that is short of nothing, changed by f.
func fit(f func(*coordinator.Vitals)) *coordinator.Vitals {
	total, stall := int64(100<<30), 0.0
	v := &coordinator.Vitals{
		CPUPercent: 100, MemoryFreeBytes: 8 << 30, StoreFreeBytes: 50 << 30, StoreTotalBytes: &total,
		MemoryStallPercent: &stall, IOStallPercent: new(95.0),
	}
	if f != nil {
		f(v)
	}
	return v
}

func disk(gib int64) *coordinator.Vitals {
	return fit(func(v *coordinator.Vitals) { v.StoreFreeBytes = gib << 30 })
}

// What cordons a builder, with the reason that people read, and what brings it back.
func TestCordon(t *testing.T) {
	memory := func(gib float64) *coordinator.Vitals {
		return fit(func(v *coordinator.Vitals) { v.MemoryFreeBytes = int64(gib * (1 << 30)) })
	}
	stall := func(percent float64) *coordinator.Vitals {
		return fit(func(v *coordinator.Vitals) { v.MemoryStallPercent = &percent })
	}
	for _, tt := range []struct {
		name              string
		fine, short       *coordinator.Vitals // this is not enough to be cordoned, this is
		better, recovered *coordinator.Vitals // this is not enough to come back, this is
		reason            string
	}{
		{"disk", disk(10), disk(9), disk(11), disk(12), "short of disk: 9.0 GiB of 100.0 GiB free in /nix"},
		{"memory", memory(0.9), memory(0.7), memory(1.5), memory(1.7), "short of memory: 0.7 GiB of 16.0 GiB free"},
		{"pressure", stall(19), stall(20), stall(5), stall(4.9), "under memory pressure: all that runs there waits for memory 20 % of the time"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h, _ := start(t, coordinator.Config{Builders: []string{"b1", "b2"}})
				h.ready("b1")
				h.ready("b2")
				readyAt := h.builder("b1").ReadyAt
				h.renew("b1", tt.fine)
				h.wantState("b1", coordinator.StateReady)
				h.renew("b1", tt.short)
				h.wantState("b1", coordinator.Cordoned)
				if b := h.builder("b1"); b.Reason != tt.reason {
					t.Errorf("reason = %s, want %s", b.Reason, tt.reason)
				}
				time.Sleep(time.Second)
				h.renew("b1", tt.better)
				h.wantState("b1", coordinator.Cordoned)
				h.renew("b1", tt.recovered)
				h.wantState("b1", coordinator.StateReady)
				if b := h.builder("b1"); b.Reason != "has room again" || b.ReadyAt != readyAt {
					t.Errorf("back as %+v, want it ready since %v", b, readyAt)
				}
			})
		})
	}
}

// A slow builder is better than none: the last that can do a build keeps its place, and one
// that is cordoned gets it back when the others go.
func TestTheLastIsNotCordoned(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, _ := start(t, coordinator.Config{Builders: []string{"b1", "b2", "b3"}, Quorum: 2})
		h.ready("b1")
		h.renew("b1", disk(1)) // while it gathers
		h.wantState("b1", coordinator.StateReady)
		b2 := h.ready("b2")
		h.wantState("b1", coordinator.Cordoned)
		h.renew("b2", disk(1))
		h.wantState("b2", coordinator.StateReady)
		h.depart("b2", b2)
		h.wantState("b1", coordinator.StateReady)
		if b := h.builder("b1"); !strings.Contains(b.Reason, "nobody else builds what it builds (short of disk") {
			t.Errorf("reason = %s", b.Reason)
		}
		h.ready("b3")
		h.wantState("b1", coordinator.Cordoned)
	})
	t.Run("another system or feature is no substitute", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			h, _ := start(t, coordinator.Config{Builders: []string{"b1", "b2", "b3"}, Quorum: 1})
			h.ready("b1")
			for name, change := range map[string]func(*coordinator.Offer){
				"b2": func(o *coordinator.Offer) { o.Systems = []string{"aarch64-linux"} },
				"b3": func(o *coordinator.Offer) { o.Features = []string{"big-parallel"} },
			} {
				in := checkIn(name, [16]byte{1})
				change(&in.Offer)
				ticket, _, err := h.CheckIn(t.Context(), node(name), in)
				if err != nil {
					t.Fatal(err)
				}
				if err := h.Verified(ticket.ID, 1, 1); err != nil {
					t.Fatal(err)
				}
			}
			h.renew("b1", disk(1))
			h.wantState("b1", coordinator.StateReady)
		})
	})
	t.Run("who does not want it", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			h, _ := start(t, coordinator.Config{Builders: []string{"b1", "b2"}, KeepStrained: true})
			h.ready("b1")
			h.ready("b2")
			h.renew("b1", disk(1))
			h.wantState("b1", coordinator.StateReady)
		})
	})
}

// A cordoned builder stays it over a restart, until it tells how it is.
func TestCordonSurvivesRestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := coordinator.Config{Builders: []string{"b1", "b2"}, Journal: &memory{}}
		h, end := start(t, cfg)
		h.ready("b1")
		h.ready("b2")
		h.renew("b1", disk(1))
		before := h.builder("b1")
		end()
		again, _ := start(t, cfg)
		synctest.Wait()
		if b := again.builder("b1"); b.State != coordinator.Cordoned || b.Reason != before.Reason {
			t.Errorf("b1 is %s (%s)", b.State, b.Reason)
		}
		instance, _ := h.instance.Load("b1")
		again.instance.Store("b1", instance)
		again.renew("b1", disk(50))
		again.wantState("b1", coordinator.StateReady)
	})
}

// The quorum may ask for systems.
func TestSystemQuorum(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := coordinator.Config{
			Builders: []string{"b1", "b2", "b3"}, GatherTimeout: time.Minute,
			SystemQuorum: map[string]int{"x86_64-linux": 2, "aarch64-darwin": 1},
		}
		h, _ := start(t, cfg)
		if diff := cmp.Diff(cfg.SystemQuorum, h.View().SystemQuorum); diff != "" || h.View().Quorum != 2 {
			t.Errorf("quorum %d and (-want +got):\n%s", h.View().Quorum, diff)
		}
		h.ready("b1")
		h.ready("b2")
		h.wantPhase(coordinator.Gathering)
		in := checkIn("b3", [16]byte{1})
		in.Offer.Systems = []string{"aarch64-darwin", "x86_64-darwin"}
		ticket, _, err := h.CheckIn(t.Context(), node("b3"), in)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Verified(ticket.ID, 1, 1); err != nil {
			t.Fatal(err)
		}
		h.wantPhase(coordinator.Ready)
		if v := h.View(); v.Reason != "3 of 3 builders are ready, 2 needed; aarch64-darwin: 1 of 1 needed, x86_64-linux: 2 of 2 needed" {
			t.Errorf("reason = %s", v.Reason)
		}
	})
	t.Run("not met", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			h, _ := start(t, coordinator.Config{Builders: []string{"b1", "b2"}, SystemQuorum: map[string]int{"aarch64-darwin": 1}, GatherTimeout: 30 * time.Second})
			h.ready("b1")
			time.Sleep(30 * time.Second)
			synctest.Wait()
			h.wantPhase(coordinator.Failed)
			if v := h.View(); v.Reason != "after 30s 1 of 2 builders were ready, 1 needed; aarch64-darwin: 0 of 1 needed" {
				t.Errorf("reason = %s", v.Reason)
			}
		})
	})
}
