package scheduler_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
)

// A story is a random course of things, with what must be true after each of its steps kept
// beside the scheduler, by nothing but what hooks are told.
type story struct {
	*rig
	rand     *rand.Rand
	machines map[string]scheduler.Machine
	hooks    []*actor
	numbers  int
	steps    []string // what was done, for people
}

// An actor is a hook and how far it is, as it knows itself.
type actor struct {
	*hook
	build   scheduler.Build
	stage   string // accepted, waiting, running, stranded, moving, over
	on      string // machine whose slot it has
	resumed bool   // it came with its slot
	kept    bool   // it had its slot before it queued
	again   bool
	avoid   string // where it failed last
	number  int    // of its place in the queue
}

// Whatever happens: no slot is given twice, nobody waits for what is free, the queue's order
// is kept, who runs on a machine that is gone is told.
func TestRandomStories(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &story{
					rig:      newRig(t, scheduler.Config{MaxWaiting: 12}),
					rand:     rand.New(rand.NewPCG(seed, 5)),
					machines: make(map[string]scheduler.Machine),
				}
				s.Set(nil)
				for range 300 {
					s.step()
					s.check()
					if t.Failed() {
						t.Fatalf("after:\n%s", strings.Join(s.steps[max(0, len(s.steps)-25):], "\n"))
					}
				}
			})
		})
	}
}

func (s *story) note(format string, args ...any) {
	s.steps = append(s.steps, fmt.Sprintf(format, args...))
}

func (s *story) step() {
	h := s.anyHook()
	switch n := s.rand.IntN(20); {
	case n < 6:
		s.newHook()
	case n < 9:
		s.changeMachines()
	case n == 9:
		d := time.Duration(s.rand.IntN(60)) * time.Second
		s.note("%v pass", d)
		time.Sleep(d)
	case h == nil:
	case n == 10:
		s.note("%s leaves, %s", h.build.Derivation, h.stage)
		h.Close()
		h.stage, h.on = "over", ""
	case h.stage == "accepted", h.stage == "moving", h.stage == "stranded":
		s.note("%s queues, %s", h.build.Derivation, h.stage)
		h.again = h.stage != "accepted"
		s.numbers++
		h.stage, h.number, h.resumed = "waiting", s.numbers, false
		if h.again || s.machines[h.on].State != scheduler.Ready {
			h.on = "" // what it was promised is void
		}
		h.kept = h.on != ""
		m := scheduler.Message{Op: scheduler.OpQueue, Inputs: []string{"/nix/store/in-" + fmt.Sprint(s.rand.IntN(20))}}
		if h.avoid != "" {
			m.Avoid = []string{h.avoid}
		}
		h.send(m)
	case h.stage == "running":
		outcome := []string{scheduler.OutcomeBuilt, scheduler.OutcomeFailed, scheduler.OutcomeMoved}[s.rand.IntN(3)]
		s.note("%s is %s", h.build.Derivation, outcome)
		h.done(outcome)
		h.stage, h.resumed = "over", false
		if outcome == scheduler.OutcomeMoved {
			h.stage, h.avoid = "moving", h.on
		}
		h.on = ""
	}
	synctest.Wait()
}

func (s *story) anyHook() *actor {
	s.hooks = slices.DeleteFunc(s.hooks, func(h *actor) bool {
		if h.stage == "over" {
			h.Close()
		}
		return h.stage == "over"
	})
	if len(s.hooks) == 0 {
		return nil
	}
	return s.hooks[s.rand.IntN(len(s.hooks))]
}

func (s *story) newHook() {
	s.numbers++
	b := build(fmt.Sprint("d", s.numbers))
	if s.rand.IntN(3) == 0 {
		b.System = "aarch64-linux"
	}
	if s.rand.IntN(4) == 0 {
		b.Features = []string{"big-parallel"}
	}
	h := &actor{hook: s.hook(), build: b, number: s.numbers, stage: "over"}
	s.hooks = append(s.hooks, h)
	if s.rand.IntN(12) == 0 {
		h.stage, h.on, h.resumed = "running", fmt.Sprint("b", s.rand.IntN(5)), true
		s.note("%s resumes on %s", b.Derivation, h.on)
		h.send(scheduler.Message{Op: scheduler.OpResume, Build: &b, Machine: h.on})
		return
	}
	s.note("%s tries", b.Derivation)
	h.send(scheduler.Message{Op: scheduler.OpTry, Build: &b, Local: s.rand.IntN(4) == 0})
}

func (s *story) changeMachines() {
	name := fmt.Sprint("b", s.rand.IntN(5))
	if _, there := s.machines[name]; there && s.rand.IntN(2) == 0 {
		delete(s.machines, name)
		for _, h := range s.hooks {
			if h.on == name && h.stage == "accepted" {
				h.on = ""
			}
		}
		s.note("%s goes", name)
	} else {
		m := machine(name, 1+s.rand.IntN(3))
		if there {
			m.Slots = s.machines[name].Slots
		}
		m.State = []scheduler.State{scheduler.Ready, scheduler.Ready, scheduler.Coming, scheduler.Resting}[s.rand.IntN(4)]
		if s.rand.IntN(3) == 0 {
			m.Systems = append(m.Systems, "aarch64-linux")
		}
		s.machines[name] = m
		s.note("%s has %d slots for %v, state %d", name, m.Slots, m.Systems, m.State)
	}
	var all []scheduler.Machine
	for _, m := range s.machines {
		all = append(all, m)
	}
	s.Set(all)
}

// listen takes over what all hooks were told since the last step, and gives those that run
// since.
func (s *story) listen() (begun []*actor) {
	for _, h := range s.hooks {
		for more := true; more; {
			select {
			case m, ok := <-h.Messages():
				if !ok {
					if h.stage != "over" {
						s.t.Errorf("%s was cut off when %s", h.build.Derivation, h.stage)
					}
					more = false
					break
				}
				s.hear(h, m)
				if m.Op == scheduler.OpRun {
					begun = append(begun, h)
				}
				synctest.Wait()
			default:
				more = false
			}
		}
	}
	return begun
}

func (s *story) hear(h *actor, m scheduler.Message) {
	s.note("  %s hears %s %s", h.build.Derivation, m.Op, m.Machine)
	before := h.stage
	switch m.Op {
	case scheduler.OpAccept:
		h.stage, h.on = "accepted", m.Machine
	case scheduler.OpRun:
		h.stage, h.on = "running", m.Machine
		if before != "waiting" {
			s.t.Errorf("%s is to run when %s", h.build.Derivation, before)
		}
	case scheduler.OpLost:
		h.stage, h.on = "stranded", ""
		if before != "running" {
			s.t.Errorf("%s has lost what it had not", h.build.Derivation)
		}
	case scheduler.OpFail:
		h.stage = "over"
		for _, other := range s.machines {
			if can(other, h.build) {
				s.t.Errorf("%s fails though %s is there", h.build.Derivation, other.Name)
			}
		}
	}
}

// others tells whether a hook has a machine to wait for other than the one that it avoids.
func (s *story) others(h *actor) bool {
	for name, m := range s.machines {
		if name != h.avoid && m.State == scheduler.Ready && can(m, h.build) {
			return true
		}
	}
	return false
}

func can(m scheduler.Machine, b scheduler.Build) bool { return slices.Contains(m.Systems, b.System) }

func (s *story) check() {
	begun := s.listen()
	used, over := make(map[string]int), make(map[string]bool)
	for _, h := range s.hooks {
		_, there := s.machines[h.on]
		switch {
		case h.on == "" || h.stage == "over":
		case there:
			used[h.on]++
			over[h.on] = over[h.on] || h.resumed
		case h.stage == "running":
			s.t.Errorf("%s runs on %s, which is gone, and was not told", h.build.Derivation, h.on)
		}
	}
	running := s.Running()
	for name, m := range s.machines {
		if running[name] != used[name] {
			s.t.Errorf("%s: %d are on it, and %d by the scheduler", name, used[name], running[name])
		}
		if used[name] > m.Slots && !over[name] {
			s.t.Errorf("%s has %d slots, and %d are used", name, m.Slots, used[name])
		}
	}
	shuns := s.Stats().Shunned
	for name, until := range shuns {
		if d := time.Until(until); d <= 0 || d > 30*time.Second {
			s.t.Errorf("%s is shunned for %v more", name, d)
		}
	}
	for _, h := range s.hooks {
		if h.stage != "waiting" {
			continue
		}
		for name, m := range s.machines {
			if _, shunned := shuns[name]; shunned || h.avoid == name && s.others(h) {
				continue
			}
			if m.State == scheduler.Ready && used[name] < m.Slots && can(m, h.build) {
				s.t.Errorf("%s waits and %s is free", h.build.Derivation, name)
			}
		}
		for _, first := range begun {
			same := first.build.System == h.build.System && slices.Equal(first.build.Features, h.build.Features)
			if same && !first.kept && first.again == h.again && h.number < first.number && h.avoid == "" {
				s.t.Errorf("%s runs before %s", first.build.Derivation, h.build.Derivation)
			}
		}
	}
}
