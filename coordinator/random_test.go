package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
)

// player makes random calls on a cluster and holds what it sees against what must
// always be true.
type player struct {
	t    *testing.T
	r    *rand.Rand
	cfg  coordinator.Config
	h    *harness
	end  func()          // of the cluster's process
	ctx  context.Context // of the calls to that process
	log  []string
	ids  []uuid.UUID // all that were ever given, oldest first
	node map[uuid.UUID]coordinator.Node

	events *coordinator.Subscription
	last   coordinator.View
	phase  string            // as the events tell
	states map[string]string // by name, as the events tell
	polls  int               // that wait
	ended  chan error
}

func TestRandomCalls(t *testing.T) {
	seeds := 100
	if testing.Short() {
		seeds = 20
	}
	for seed := range seeds {
		bubble(t, func(t *testing.T) {
			p := &player{
				t: t, r: rand.New(rand.NewPCG(1, uint64(seed))), node: make(map[uuid.UUID]coordinator.Node),
				cfg: coordinator.Config{
					Builders: []string{"b", "b-1", "c", "d"}, Quorum: seed % 5, Journal: &memory{}, Events: 8,
				},
				phase: "gathering", states: make(map[string]string), ended: make(chan error, 1000),
			}
			for _, name := range p.cfg.Builders {
				p.states[name] = "expected"
			}
			p.boot()
			defer func() {
				if t.Failed() {
					for _, line := range p.log {
						t.Log(line)
					}
				}
			}()
			for i := 0; i < 120 && !t.Failed(); i++ {
				p.step()
				synctest.Wait()
				p.check()
			}
			p.finish()
		})
	}
}

func (p *player) boot() {
	h, end := start(p.t, p.cfg)
	ctx, cancel := context.WithCancel(context.Background())
	p.h, p.ctx, p.end = h, ctx, func() { end(); cancel() }
	p.events = p.h.Follow(p.last.Event, 10_000)
	if _, ok := p.events.Snapshot(); ok {
		p.t.Fatal("a reader that has every event got a snapshot")
	}
}

func (p *player) say(format string, args ...any) {
	p.log = append(p.log, fmt.Sprintf(format, args...))
}

// id is a random id that was given, or none.
func (p *player) id() uuid.UUID {
	if len(p.ids) == 0 || p.r.IntN(20) == 0 {
		return uuid.New()
	}
	return p.ids[max(0, len(p.ids)-1-p.r.IntN(6))]
}

func (p *player) step() {
	ctx := context.Background()
	id := p.id()
	caller := p.node[id]
	if p.r.IntN(30) == 0 {
		caller = node("x")
	}
	switch p.r.IntN(22) {
	case 0, 1, 2, 3, 4, 5:
		name := p.cfg.Builders[p.r.IntN(4)]
		n := node([]string{name, name, name + "-1", "b-1"}[p.r.IntN(4)])
		instance := uuid.UUID{1, byte(p.r.IntN(4))} // few, so that they come again
		before := p.h.View()
		ticket, created, err := p.h.CheckIn(ctx, n, checkIn(name, instance))
		p.say("check in %s from %s, instance %d: %v %v %v", name, n.Name, instance[1], ticket.ID, created, err)
		if err == nil {
			if _, ok := p.node[ticket.ID]; !ok {
				p.ids = append(p.ids, ticket.ID)
			}
			p.node[ticket.ID] = n
			if created && before.Phase > coordinator.Ready {
				p.t.Errorf("a check-in while %s made something new", before.Phase)
			}
		}
	case 6, 7, 8:
		p.say("%s polls", id)
		p.polls++
		h, ctx := p.h, p.ctx
		go func() {
			_, err := h.AwaitTeardown(ctx, caller, id, 15*time.Second)
			p.ended <- err
		}()
	case 9, 10:
		p.say("%s departs: %v", id, p.h.Depart(ctx, caller, id, coordinator.Departure{Reason: coordinator.DepartFailed}))
	case 11, 12, 13, 14:
		p.say("%s is verified: %v", id, p.h.Verified(id, 1+p.r.IntN(4), 1+p.r.IntN(2)))
	case 15:
		p.say("%s is rejected: %v", id, p.h.Reject(id, "unusable"))
	case 16:
		p.h.Note(id, "not yet")
	case 17, 18, 19:
		d := time.Duration(p.r.IntN(40)) * time.Second
		p.say("%v pass", d)
		time.Sleep(d)
	case 20:
		req := coordinator.StopRequest{Wait: time.Duration(p.r.IntN(3)) * time.Second}
		if p.r.IntN(3) > 0 {
			req.Builders = []string{p.cfg.Builders[p.r.IntN(4)]}
		} else if p.r.IntN(3) > 0 {
			return // not too soon
		}
		report, err := p.h.Stop(ctx, req)
		p.say("stop %v: %v", req.Builders, err)
		remain := false
		for _, b := range report.Builders {
			remain = remain || !b.Left
		}
		if remain != errors.Is(err, coordinator.ErrRemain) {
			p.t.Errorf("Stop = %v with the report %+v", err, report)
		}
	case 21:
		p.say("restart")
		p.end()
		p.boot()
	}
}

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
		}
	}
	if v.Phase == coordinator.Stopping && present == 0 {
		p.t.Error("nobody is there, and the cluster is not stopped")
	}
	p.last = v
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

// finish stops the cluster: every poll ends, and everyone who is told leaves.
func (p *player) finish() {
	_, err := p.h.Stop(context.Background(), coordinator.StopRequest{})
	if err != nil && !errors.Is(err, coordinator.ErrRemain) {
		p.t.Error(err)
	}
	synctest.Wait()
	p.check()
	for _, b := range p.h.View().Builders {
		if b.State == coordinator.Expected {
			continue
		}
		if _, err := p.h.AwaitTeardown(context.Background(), b.Node, b.ID, time.Minute); err != nil {
			p.t.Errorf("poll of %s: %v", b.Name, err)
		}
		if err := p.h.Depart(context.Background(), b.Node, b.ID, coordinator.Departure{Reason: coordinator.DepartTeardown}); err != nil {
			p.t.Errorf("departure of %s: %v", b.Name, err)
		}
	}
	synctest.Wait()
	p.check()
	p.h.wantPhase(coordinator.Stopped)
	if _, err := p.h.Stop(context.Background(), coordinator.StopRequest{}); err != nil {
		p.t.Errorf("last stop = %v", err)
	}
	p.events.Close()
	p.end()
}
