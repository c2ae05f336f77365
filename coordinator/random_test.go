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
	// instance is who got an id.
	instance map[uuid.UUID]uuid.UUID

	events *coordinator.Subscription
	last   coordinator.View
	phase  string            // as the events tell
	states map[string]string // by name, as the events tell
	polls  int               // that wait
	ended  chan error

	calm   bool // nobody falls silent, and few things end the cluster
	builds *building
	drains map[string]time.Time // by name, of those that are drained: by then they have been told to leave
	broke  map[uuid.UUID]time.Time
}

const (
	maxDrain   = time.Minute     // of the player's drains
	drainSlack = 2 * time.Second // that a drain takes to see its end
)

func TestRandomCalls(t *testing.T) {
	seeds := 100
	if testing.Short() {
		seeds = 20
	}
	for seed := range seeds {
		bubble(t, func(t *testing.T) {
			p := &player{
				t: t, r: rand.New(rand.NewPCG(1, uint64(seed))), node: make(map[uuid.UUID]coordinator.Node), instance: make(map[uuid.UUID]uuid.UUID),
				cfg: coordinator.Config{
					Builders: []string{"b", "b-1", "c", "d"}, Quorum: seed % 5, Journal: &memory{}, Events: 8,
				},
				phase: "gathering", states: make(map[string]string), ended: make(chan error, 1000),
				builds: &building{count: make(map[string]int)},
				calm:   seed%2 == 1, drains: make(map[string]time.Time), broke: make(map[uuid.UUID]time.Time),
			}
			p.cfg.Dispatch = p.builds
			for _, name := range p.cfg.Builders {
				p.states[name] = "expected"
			}
			p.boot()
			if p.calm { // it is ready early
				for _, name := range p.cfg.Builders {
					p.gather(name)
				}
				synctest.Wait()
				p.check()
			}
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

// gather brings a builder in.
func (p *player) gather(name string) {
	id := p.h.ready(name)
	instance, _ := p.h.instance.Load(name)
	p.ids, p.node[id], p.instance[id] = append(p.ids, id), node(name), instance.(uuid.UUID)
}

func (p *player) boot() {
	h, end := start(p.t, p.cfg)
	ctx, cancel := context.WithCancel(context.Background())
	p.h, p.ctx, p.end = h, ctx, func() { end(); cancel() }
	for name := range p.drains { // they begin anew
		p.drains[name] = time.Now().Add(maxDrain + drainSlack)
	}
	clear(p.broke)
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
	switch p.r.IntN(34) {
	case 0, 1, 2, 3, 4, 5:
		name := p.cfg.Builders[p.r.IntN(4)]
		n := node([]string{name, name, name + "-1", "b-1"}[p.r.IntN(4)])
		instance := uuid.UUID{1, byte(p.r.IntN(4))} // few, so that they come again
		before := p.h.View()
		ticket, created, err := p.h.CheckIn(ctx, n, p.checkIn(name, instance))
		p.say("check in %s from %s, instance %d: %v %v %v", name, n.Name, instance[1], ticket.ID, created, err)
		if err == nil {
			if _, ok := p.node[ticket.ID]; !ok {
				p.ids = append(p.ids, ticket.ID)
			}
			p.node[ticket.ID] = n
			p.instance[ticket.ID] = instance
			delete(p.broke, ticket.ID)
			if created && before.Phase > coordinator.Ready {
				p.t.Errorf("a check-in while %s made something new", before.Phase)
			}
		}
	case 6, 7, 8:
		p.say("%s polls", id)
		p.polls++
		if caller == p.node[id] {
			delete(p.broke, id)
		}
		h, ctx := p.h, p.ctx
		go func() {
			_, err := h.AwaitTeardown(ctx, caller, id, 15*time.Second)
			p.ended <- err
		}()
	case 9, 10:
		p.say("%s departs: %v", id, p.h.Depart(ctx, caller, id, coordinator.Departure{Reason: coordinator.DepartFailed}))
	case 11, 12, 13, 14:
		err := p.h.Verified(id, 1+p.r.IntN(4), 1+p.r.IntN(2))
		p.say("%s is verified: %v", id, err)
		for _, b := range p.last.Builders {
			if b.ID == id && b.ID != uuid.Nil && (b.Drained || b.Leaving) && err == nil {
				p.t.Errorf("%s is taken for ready, and is to leave", b.Name)
			}
		}
	case 15:
		p.say("%s is rejected: %v", id, p.h.Reject(id, "unusable"))
	case 16:
		p.h.Note(id, "not yet")
	case 17, 18, 19:
		d := time.Duration(p.r.IntN(40)) * time.Second
		if p.calm {
			d /= 3
			p.all(func(b coordinator.Builder) {
				p.h.AwaitTeardown(ctx, b.Node, b.ID, 0)
				delete(p.broke, b.ID)
			})
		}
		p.say("%v pass", d)
		time.Sleep(d)
	case 20:
		req := coordinator.StopRequest{Wait: time.Duration(p.r.IntN(3)) * time.Second}
		if p.r.IntN(3) > 0 {
			req.Builders = []string{p.cfg.Builders[p.r.IntN(4)]}
		} else if p.calm || p.r.IntN(3) > 0 {
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
	case 22, 23, 24:
		p.breakPoll(caller, id)
	case 25, 26, 27:
		name := p.cfg.Builders[p.r.IntN(4)]
		n := p.r.IntN(3)
		p.say("%d builds run on %s", n, name)
		p.builds.set(name, n)
	case 28, 29:
		p.drain()
	case 30, 31, 32, 33:
		p.all(func(b coordinator.Builder) {
			if p.r.IntN(2) > 0 {
				_, _, err := p.h.CheckIn(ctx, b.Node, p.checkIn(b.Name, p.instance[b.ID]))
				p.say("%s tells how it is: %v", b.Name, err)
				delete(p.broke, b.ID)
			}
		})
	}
}

// all does something for each builder that is there.
func (p *player) all(do func(coordinator.Builder)) {
	for _, b := range p.h.View().Builders {
		if b.State.Present() {
			do(b)
		}
	}
}

// checkIn is a check-in of a builder that may be short of disk.
func (p *player) checkIn(name string, instance uuid.UUID) coordinator.CheckIn {
	in := checkIn(name, instance)
	if p.r.IntN(4) > 0 {
		in.Vitals = disk(int64(p.r.IntN(20)))
	}
	if name == "d" { // nobody else can stand in for it
		in.Offer.Systems = append(in.Offer.Systems, "aarch64-linux")
	}
	return in
}

// breakPoll makes a poll whose connection ends before its answer, if that takes long enough.
func (p *player) breakPoll(caller coordinator.Node, id uuid.UUID) {
	if caller == p.node[id] {
		delete(p.broke, id)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(p.r.IntN(15_000))*time.Millisecond)
	defer cancel()
	_, err := p.h.AwaitTeardown(ctx, caller, id, 15*time.Second)
	p.say("a poll of %s breaks: %v", id, err)
	if errors.Is(err, context.DeadlineExceeded) {
		p.broke[id] = time.Now()
	}
}

// drain begins a drain, rarely of all.
func (p *player) drain() {
	req := coordinator.StopRequest{Drain: time.Duration(1+p.r.IntN(int(maxDrain/time.Second))) * time.Second}
	names := p.cfg.Builders
	switch {
	case p.r.IntN(3) > 0:
		at := p.r.IntN(4)
		req.Builders = names[at : at+1+p.r.IntN(4-at)]
		names = req.Builders
	case p.r.IntN(3) > 0:
		return // not too soon
	}
	p.say("drain %v for %v", req.Builders, req.Drain)
	for _, name := range names {
		if until := time.Now().Add(req.Drain + drainSlack); p.drains[name].IsZero() || until.Before(p.drains[name]) {
			p.drains[name] = until
		}
	}
	h := p.h
	go h.Stop(context.Background(), req) // to its end, or that of the process
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
