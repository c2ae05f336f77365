package scheduler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
	"unique"
)

// Config is what a Scheduler is made from.
type Config struct {
	// Builders is the setting of that name which means these machines, "@/etc/nix/machines".
	Builders string
	// Patience is how long a build waits that no machine can do any more, before it fails.
	// If zero, 90 s.
	Patience time.Duration
	// MaxWaiting is how many accepted builds may wait for a slot; more are postponed. If
	// zero, 500.
	MaxWaiting int
	// Condition tells what a machine's host went through since then. It is to end when ctx
	// does. If nil, nobody knows.
	Condition func(ctx context.Context, machine string, since time.Time) (Condition, error)
	// Built is told of each build that ended well. It must not block. May be nil.
	Built func(Built)
	Log   *slog.Logger // if nil, nothing is logged
}

// Built is a build that ended well.
type Built struct {
	Machine string // that has its outputs
	Build   Build
	Inputs  []string // store paths, which the machine has too
}

// A Scheduler hands the slots of machines to builds. Its methods may be called at the same
// time, and none of them waits for a hook.
type Scheduler struct {
	cfg Config
	log *slog.Logger

	mu       sync.Mutex // guards all below; nothing waits with it held
	told     bool       // Set was called: what is not in machines is not there
	ever     bool       // there was a machine once
	closed   bool       // Close was called
	ended    bool       // Serve ends: nobody is told anything any more
	machines map[string]*machine
	gone     map[string]loss // machines that were lost, until they come back
	jobs     map[*job]struct{}
	queue    []*job      // those that wait; the ones that were moved stand first
	expiry   *time.Timer // fires when one that waits has done so in vain for too long; may be nil
	sizes    sizes
	count    counters
}

// A loss is what is known of a machine that is gone.
type loss struct {
	Machine
	reason string
	at     time.Time
}

// New returns a scheduler without machines. Until it is told of some, or that there are none,
// builds are postponed.
func New(cfg Config) (*Scheduler, error) {
	if cfg.Patience < 0 || cfg.MaxWaiting < 0 {
		return nil, errors.New("new scheduler: patience and the number that may wait are not below zero")
	}
	cfg.Patience = cmp.Or(cfg.Patience, 90*time.Second)
	cfg.MaxWaiting = cmp.Or(cfg.MaxWaiting, 500)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Scheduler{
		cfg:      cfg,
		log:      cfg.Log,
		machines: make(map[string]*machine),
		gone:     make(map[string]loss),
		jobs:     make(map[*job]struct{}),
		count:    newCounters(),
	}, nil
}

// Sized tells the size of a store path, or of all that a derivation has made, in bytes. It is
// what a machine is better by that has the path.
func (s *Scheduler) Sized(path string, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sizes.add(unique.Make(path), max(0, bytes))
}

// Set says which machines there are, all of them. One that is absent and was there is lost:
// the builds that run on it are told so and go elsewhere.
func (s *Scheduler) Set(machines []Machine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = true
	there := make(map[string]bool, len(machines))
	for _, m := range machines {
		if m.Name == "" || there[m.Name] {
			continue // the first of a name counts
		}
		there[m.Name] = true
		s.ever = true
		delete(s.gone, m.Name)
		if known := s.machines[m.Name]; known != nil {
			known.Machine = m
		} else {
			s.machines[m.Name] = &machine{Machine: m}
		}
	}
	for name := range s.machines {
		if !there[name] {
			s.loseLocked(name, goneReason)
		}
	}
	for name, gone := range s.gone {
		if time.Since(gone.at) > 10*s.cfg.Patience { // too old to explain any failure
			delete(s.gone, name)
		}
	}
	s.dispatchLocked()
	s.expireLocked()
}

// Lose takes one machine away, with a reason for those who lose builds by it. It is to be
// absent from the next Set, too.
func (s *Scheduler) Lose(name, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.machines[name] == nil {
		return
	}
	s.loseLocked(name, reason)
	s.expireLocked()
}

// goneReason stands where nobody has given a better one.
const goneReason = "it is gone"

// loseLocked drops a machine that is there. A build that runs on it is told; one that only
// has a slot on it loses that without a word, and waits once it asks for it.
func (s *Scheduler) loseLocked(name, reason string) {
	s.gone[name] = loss{s.machines[name].Machine, reason, time.Now()}
	s.machines[name].trust() // and its timer with it
	delete(s.machines, name)
	for j := range s.jobs {
		if j.on == nil || j.on.Name != name {
			continue
		}
		j.on = nil
		if j.stage == running {
			j.stage = stranded
			j.tell(Message{Op: OpLost, Machine: name, Reason: reason}, "")
		}
	}
}

// Close takes no more builds: those that wait fail, those that run go on.
func (s *Scheduler) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, j := range s.queue {
		s.failLocked(j, closedReason)
	}
	s.queue = nil
}

const closedReason = "the cluster was stopped, it takes no more builds"

// Running counts the slots that are taken, by machine. One is taken from the moment that a
// build was promised it.
func (s *Scheduler) Running() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runningLocked()
}

func (s *Scheduler) runningLocked() map[string]int {
	used := make(map[string]int, len(s.machines))
	for name, m := range s.machines {
		used[name] = m.used
	}
	return used
}

// condition asks what a machine went through; not knowing is an answer too.
func (s *Scheduler) condition(ctx context.Context, machine string, since time.Time) Condition {
	if s.cfg.Condition == nil {
		return Condition{Unknown: "nobody here knows"}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, conditionWait, fmt.Errorf("no answer within %v", conditionWait))
	defer cancel()
	c, err := s.cfg.Condition(ctx, machine, since)
	if err != nil {
		return Condition{Unknown: err.Error()}
	}
	return c
}

// conditionWait bounds the question for a machine's condition.
const conditionWait = 2 * time.Second
