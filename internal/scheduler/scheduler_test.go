package scheduler_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
)

func TestABuildFromTryToDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var built []scheduler.Built
		r := newRig(t, scheduler.Config{Built: func(b scheduler.Built) { built = append(built, b) }})
		r.Set([]scheduler.Machine{machine("b1", 1)})

		h := r.hook()
		if diff := cmp.Diff("@/etc/nix/machines", h.Builders()); diff != "" {
			t.Errorf("builders (-want +got):\n%s", diff)
		}
		b := build("a")
		h.try(b, scheduler.OpAccept, "b1")
		r.wantRunning(map[string]int{"b1": 1}) // the slot is kept from the promise on

		next := r.hook()
		next.try(build("b"), scheduler.OpAccept, "")
		next.queue()
		h.queue("/nix/store/in")
		h.hears(scheduler.Message{Op: scheduler.OpRun, Machine: "b1", Line: "ssh-ng://b1 x86_64-linux - 1"})
		next.hearsNothing()
		time.Sleep(3 * time.Second)
		h.done(scheduler.OutcomeBuilt)
		next.hears(scheduler.Message{Op: scheduler.OpRun, Machine: "b1", Waited: 3 * time.Second})
		r.wantRunning(map[string]int{"b1": 1})
		next.Close() // as when it is interrupted
		r.wantRunning(map[string]int{"b1": 0})

		if diff := cmp.Diff([]scheduler.Built{{Machine: "b1", Build: b, Inputs: []string{"/nix/store/in"}}}, built); diff != "" {
			t.Errorf("built (-want +got):\n%s", diff)
		}
		got := r.Stats()
		want := map[string]uint64{"built": 1, "failed": 0, "moved": 0, "gave-up": 1}
		if diff := cmp.Diff(want, got.Ended); diff != "" {
			t.Errorf("ended (-want +got):\n%s", diff)
		}
		if got.Waits.Count != 2 || got.Waits.Sum != 3*time.Second {
			t.Errorf("waits: %+v", got.Waits)
		}
	})
}

func TestAnswersToTry(t *testing.T) {
	local := func(b scheduler.Build) scheduler.Message {
		return scheduler.Message{Op: scheduler.OpTry, Build: &b, Local: true}
	}
	remote := func(b scheduler.Build) scheduler.Message {
		return scheduler.Message{Op: scheduler.OpTry, Build: &b}
	}
	builtin := scheduler.Build{Derivation: drv("fetch"), System: "builtin"}
	mandatory := func(m *scheduler.Machine) { m.Mandatory = []string{"benchmark"} }
	for _, test := range []struct {
		name     string
		machines []scheduler.Machine
		try      scheduler.Message
		answer   string
		machine  string
	}{
		{"no machines", []scheduler.Machine{}, remote(build("a")), scheduler.OpDeclinePermanently, ""},
		{"nobody has told", nil, remote(build("a")), scheduler.OpPostpone, ""},
		{"a free slot", []scheduler.Machine{machine("b1", 1)}, remote(build("a")), scheduler.OpAccept, "b1"},
		{"a free slot, and home too", []scheduler.Machine{machine("b1", 1)}, local(build("a")), scheduler.OpAccept, "b1"},
		{"coming", []scheduler.Machine{machine("b1", 1, coming)}, remote(build("a")), scheduler.OpAccept, ""},
		{"coming, and free at home", []scheduler.Machine{machine("b1", 1, coming)}, local(build("a")), scheduler.OpDecline, ""},
		{"resting", []scheduler.Machine{machine("b1", 1, resting)}, remote(build("a")), scheduler.OpAccept, ""},
		{"another system", []scheduler.Machine{machine("b1", 1, arm)}, remote(build("a")), scheduler.OpDecline, ""},
		{"builtin goes anywhere", []scheduler.Machine{machine("b1", 1, arm)}, remote(builtin), scheduler.OpAccept, "b1"},
		{"a feature it has", []scheduler.Machine{machine("b1", 1)}, remote(build("a", "kvm")), scheduler.OpAccept, "b1"},
		{"a feature it lacks", []scheduler.Machine{machine("b1", 1)}, remote(build("a", "kvm", "nixos-test")), scheduler.OpDecline, ""},
		{"a mandatory feature", []scheduler.Machine{machine("b1", 1, mandatory)}, remote(build("a", "benchmark")), scheduler.OpAccept, "b1"},
		{"not asked for", []scheduler.Machine{machine("b1", 1, mandatory)}, remote(build("a")), scheduler.OpDecline, ""},
		{"no slots at all", []scheduler.Machine{machine("b1", 0)}, remote(build("a")), scheduler.OpDecline, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, scheduler.Config{})
				if test.machines != nil {
					r.Set(test.machines)
				}
				h := r.hook()
				h.send(test.try)
				h.hears(scheduler.Message{Op: test.answer, Machine: test.machine})
			})
		})
	}
}

func TestTooManyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, scheduler.Config{MaxWaiting: 2})
		r.Set([]scheduler.Machine{machine("b1", 1)})
		running := r.building(build("a"), "b1")
		r.queued(build("b"))
		r.hook().try(build("c"), scheduler.OpAccept, "") // its inputs are still to come
		h := r.hook()
		h.try(build("d"), scheduler.OpPostpone, "")
		running.done(scheduler.OutcomeBuilt)
		h.try(build("d"), scheduler.OpAccept, "")
	})
}

func TestABuildThatCannotRunHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, scheduler.Config{})
		r.Set([]scheduler.Machine{machine("b1", 1), machine("b2", 1, arm)})
		x86, onArm := r.building(build("a"), "b1"), r.building(armBuild("b"), "b2")
		firstX86, firstArm, secondX86 := r.queued(build("c")), r.queued(armBuild("d")), r.queued(build("e"))
		onArm.done(scheduler.OutcomeBuilt)
		firstArm.runs("b2")
		x86.done(scheduler.OutcomeFailed)
		firstX86.runs("b1")
		secondX86.hearsNothing()
	})
}

// What was moved goes before what has had no slot yet, and not where it failed if there is
// another.
func TestRetriesGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, scheduler.Config{})
		r.Set([]scheduler.Machine{machine("b1", 1), machine("b2", 1)})
		moved, other := r.building(build("a"), "b1"), r.building(build("b"), "b2")
		r.Set([]scheduler.Machine{machine("b1", 1, resting), machine("b2", 1)})
		waits := r.queued(build("c"))
		moved.done(scheduler.OutcomeMoved)
		moved.send(scheduler.Message{Op: scheduler.OpQueue, Avoid: []string{"b1"}, Tries: 1})
		other.done(scheduler.OutcomeBuilt)
		moved.runs("b2")
		waits.hearsNothing()

		r.Set([]scheduler.Machine{machine("b1", 1), machine("b2", 1)})
		time.Sleep(time.Second)
		waits.runs("b1")
		waits.done(scheduler.OutcomeBuilt)
		moved.done(scheduler.OutcomeMoved)
		moved.send(scheduler.Message{Op: scheduler.OpQueue, Avoid: []string{"b1"}, Tries: 2})
		moved.hearsNothing() // though b1 is free, and b2 is to be left alone
		time.Sleep(time.Second)
		moved.runs("b2")
	})
}

// What is wrong with a machine is wrong for the next build as well.
func TestAMachineToBlameIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, scheduler.Config{})
		r.Set([]scheduler.Machine{machine("b1", 2), machine("b2", 2)})
		first, second := r.building(build("a"), "b1"), r.building(build("b"), "b2")
		both := r.building(build("c"), "b1")
		r.building(build("h"), "b2")
		first.done(scheduler.OutcomeMoved)
		both.done(scheduler.OutcomeMoved) // for the same reason: it counts once
		waits := r.queued(build("d"))
		waits.hearsNothing()
		second.done(scheduler.OutcomeFailed) // which says nothing against b2
		waits.runs("b2")
		next := r.queued(build("e"))
		next.hearsNothing()
		time.Sleep(time.Second)
		next.runs("b1")

		// It happens again, and again.
		for _, while := range []time.Duration{4 * time.Second, 16 * time.Second, 30 * time.Second, 30 * time.Second} {
			next.done(scheduler.OutcomeMoved)
			next.queue()
			time.Sleep(while - time.Millisecond)
			next.hearsNothing()
			time.Sleep(time.Millisecond)
			next.runs("b1")
		}
		next.done(scheduler.OutcomeBuilt) // forgiven
		r.building(build("f"), "b1").done(scheduler.OutcomeMoved)
		last := r.queued(build("g"))
		time.Sleep(time.Second)
		last.runs("b1")
	})
}

func TestADeclineSaysWhatThereIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, scheduler.Config{})
		mandatory := machine("b2", 1, arm)
		mandatory.Mandatory = []string{"benchmark"}
		r.Set([]scheduler.Machine{machine("b1", 1), machine("b3", 4), mandatory})
		h := r.hook()
		b := build("a", "nobody-has-this")
		h.send(scheduler.Message{Op: scheduler.OpTry, Build: &b})
		h.hears(scheduler.Message{Op: scheduler.OpDecline, Reason: "no builder can do it, for it needs x86_64-linux with nobody-has-this; " +
			"there are builders for aarch64-linux with benchmark, big-parallel, kvm (only builds that require benchmark); for x86_64-linux with big-parallel, kvm"})
	})
}

func TestAsk(t *testing.T) {
	since := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	ask := scheduler.Message{Op: scheduler.OpAsk, Machine: "b1", Since: since}
	answer := func(c scheduler.Condition) scheduler.Message {
		return scheduler.Message{Op: scheduler.OpCondition, Machine: "b1", Condition: &c}
	}
	t.Run("known", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, scheduler.Config{Condition: func(_ context.Context, m string, at time.Time) (scheduler.Condition, error) {
				if m != "b1" || !at.Equal(since) {
					return scheduler.Condition{}, errors.New("asked for " + m)
				}
				return scheduler.Condition{OOMKills: 2}, nil
			}})
			h := r.hook()
			h.send(ask)
			h.hears(answer(scheduler.Condition{OOMKills: 2}))
		})
	})
	t.Run("nobody knows", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newRig(t, scheduler.Config{}).hook()
			h.send(ask)
			h.hears(answer(scheduler.Condition{Unknown: "nobody here knows"}))
		})
	})
	// A machine that does not answer holds up neither the hook's other words nor other hooks.
	t.Run("silent", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, scheduler.Config{Condition: func(ctx context.Context, _ string, _ time.Time) (scheduler.Condition, error) {
				<-ctx.Done()
				return scheduler.Condition{}, context.Cause(ctx)
			}})
			r.Set([]scheduler.Machine{machine("b1", 1)})
			h := r.building(build("a"), "b1")
			h.send(ask)
			h.hearsNothing()
			h.done(scheduler.OutcomeFailed)
			r.wantRunning(map[string]int{"b1": 0})
			time.Sleep(2 * time.Second)
			h.hears(answer(scheduler.Condition{Unknown: "no answer within 2s"}))
			h.send(ask)
			h.Close() // ends the question, too, or the bubble would not end
		})
	})
}

// Each decision leaves its reason in the log.
func TestTheLogSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, scheduler.Config{})
		r.Set([]scheduler.Machine{machine("b1", 2), machine("b2", 4)})
		r.building(build("a"), "b2")
		r.hook().try(armBuild("b"), scheduler.OpDecline, "")
		synctest.Wait()
		for _, want := range []string{
			`op=accept build=/nix/store/a.drv machine=b2 reason="load 0.25 beside 0.5 of b1"`,
			`op=run build=/nix/store/a.drv machine=b2 reason="it was promised"`,
			`op=decline build=/nix/store/b.drv machine="" reason="no builder can do it, for it needs aarch64-linux; there are builders for x86_64-linux with big-parallel, kvm"`,
		} {
			if !strings.Contains(r.log.String(), want) {
				t.Errorf("there is no %s in:\n%s", want, r.log)
			}
		}
	})
}
