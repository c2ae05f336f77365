package coordinator_test

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
)

// check holds the cluster against what was seen before.
func (p *player) check() {
	for {
		select {
		case e := <-p.events.C():
			p.checkEvent(e)
			continue
		case <-p.ended:
			p.polls--
			continue
		default:
		}
		break
	}
	v := p.h.View()
	if v.Revision < p.last.Revision || v.Event > p.last.Event && v.Revision == p.last.Revision {
		p.t.Errorf("revision %d with event %d after revision %d with event %d", v.Revision, v.Event, p.last.Revision, p.last.Event)
	}
	if v.Phase.String() != p.phase {
		p.t.Errorf("the cluster is %s, and by its events %s", v.Phase, p.phase)
	}
	if v.Phase >= coordinator.Failed && p.polls != 0 {
		p.t.Errorf("%d polls wait while %s", p.polls, v.Phase)
	}
	present, seen := 0, make(map[uuid.UUID]bool)
	for _, b := range v.Builders {
		if b.State.String() != p.states[b.Name] {
			p.t.Errorf("%s is %s, and by its events %s", b.Name, b.State, p.states[b.Name])
		}
		if b.ID != uuid.Nil && seen[b.ID] {
			p.t.Errorf("id %s is given twice", b.ID)
		}
		seen[b.ID] = true
		if (b.ID == uuid.Nil) != (b.State == coordinator.Expected) || (b.Offer == nil) != (b.ID == uuid.Nil) {
			p.t.Errorf("%+v", b)
		}
		if (b.State == coordinator.StateReady) && (b.MaxJobs == 0 || b.ReadyAt.IsZero()) {
			p.t.Errorf("%s is ready for %d jobs since %v", b.Name, b.MaxJobs, b.ReadyAt)
		}
		if b.State.Present() {
			present++
			if b.Silent >= v.Lease {
				p.t.Errorf("%s is %s and silent for %v", b.Name, b.State, b.Silent)
			}
			if at, ok := p.broke[b.ID]; ok && time.Since(at) >= v.Lease/3 {
				p.t.Errorf("%s is %s, and its poll broke %v ago", b.Name, b.State, time.Since(at))
			}
		}
		p.checkRest(v, b)
	}
	if n := p.h.Present(); n != present {
		p.t.Errorf("%d builders are there, and the cluster counts %d", present, n)
	}
	if v.Phase == coordinator.Stopping && present == 0 {
		p.t.Error("nobody is there, and the cluster is not stopped")
	}
	p.last = v
}

// checkRest holds a builder that gets no new builds, or should get none, against why.
func (p *player) checkRest(v coordinator.View, b coordinator.Builder) {
	used := b.State == coordinator.StateReady || b.State == coordinator.Cordoned
	switch {
	case !p.drains[b.Name].IsZero() && !b.Drained && !b.Leaving:
		p.t.Errorf("%s is %s, and its drain is forgotten", b.Name, b.State)
	case used && b.Drained && !b.Leaving:
		p.t.Errorf("%s is %s, and is drained", b.Name, b.State)
	case b.State == coordinator.Draining && p.drains[b.Name].IsZero():
		p.t.Errorf("%s is draining, and nobody asked for it", b.Name)
	case !p.drains[b.Name].IsZero() && time.Now().After(p.drains[b.Name]) && !b.Leaving:
		p.t.Errorf("%s is %s after its drain", b.Name, b.State)
	case b.State != coordinator.Cordoned:
		return
	case v.Phase < coordinator.Ready:
		p.t.Errorf("%s is cordoned while %s", b.Name, v.Phase)
	case v.Phase == coordinator.Ready && !b.Leaving && !covered(v, b):
		p.t.Errorf("%s is cordoned (%s), and nobody can stand in for it", b.Name, b.Reason)
	}
}

// covered tells whether another builder that gets builds can build all that b can.
func covered(v coordinator.View, b coordinator.Builder) bool {
	for _, o := range v.Builders {
		if o.Name == b.Name || o.State != coordinator.StateReady || o.Leaving || o.Drained {
			continue
		}
		able := true
		for _, system := range b.Offer.Systems {
			able = able && slices.Contains(o.Offer.Systems, system)
		}
		if able {
			return true
		}
	}
	return false
}

func (p *player) checkEvent(e coordinator.Event) {
	p.last.Event++ // checkEvent sees all
	if e.Number != p.last.Event {
		p.t.Errorf("event %d, want %d", e.Number, p.last.Event)
	}
	if e.Builder == "" {
		if e.From != p.phase {
			p.t.Errorf("event %+v, and the cluster was %s", e, p.phase)
		}
		p.phase = e.To
		return
	}
	if e.From != p.states[e.Builder] {
		p.t.Errorf("event %+v, and the builder was %s", e, p.states[e.Builder])
	}
	p.states[e.Builder] = e.To
}
