package scheduler_test

import (
	"context"
	"errors"
	"io"
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
		waits.runs("b1")
		waits.done(scheduler.OutcomeBuilt)
		moved.done(scheduler.OutcomeMoved)
		moved.send(scheduler.Message{Op: scheduler.OpQueue, Avoid: []string{"b1"}, Tries: 2})
		moved.runs("b2") // though b1 would be the first by name
	})
}

func TestAMachineIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, scheduler.Config{})
		r.Set([]scheduler.Machine{machine("b1", 2), machine("b2", 1, resting)})
		runs := r.building(build("a"), "b1")
		promised := r.hook()
		promised.try(build("b"), scheduler.OpAccept, "b1")
		r.Lose("b1", "it was silent for 45 s")
		runs.hears(scheduler.Message{Op: scheduler.OpLost, Machine: "b1", Reason: "it was silent for 45 s"})
		promised.hearsNothing() // it has nothing to end
		promised.queue()
		promised.hearsNothing()
		r.wantRunning(map[string]int{"b2": 0})

		// It is gone, yet may come back.
		r.Set([]scheduler.Machine{})
		r.hook().try(build("c"), scheduler.OpAccept, "")
		runs.done(scheduler.OutcomeMoved)
		runs.send(scheduler.Message{Op: scheduler.OpQueue, Tries: 1})
		r.Set([]scheduler.Machine{machine("b1", 1)})
		runs.runs("b1")
		promised.hearsNothing()
		r.Set([]scheduler.Machine{machine("b3", 1)})
		runs.hears(scheduler.Message{Op: scheduler.OpLost, Machine: "b1", Reason: "it is gone"})
		promised.runs("b3")
		runs.done(scheduler.OutcomeBuilt) // its outputs had come already
		if got := r.Stats().Ended[scheduler.OutcomeBuilt]; got != 1 {
			t.Errorf("built: %d", got)
		}
	})
}

// A promise is void on a machine that rests by the time that the inputs are known.
func TestAPromiseOfAMachineThatRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, scheduler.Config{})
		r.Set([]scheduler.Machine{machine("b1", 1), machine("b2", 1)})
		h := r.hook()
		h.try(build("a"), scheduler.OpAccept, "b1")
		r.Set([]scheduler.Machine{machine("b1", 1, resting), machine("b2", 1)})
		h.queue()
		h.runs("b2")
		r.wantRunning(map[string]int{"b1": 0, "b2": 1})
	})
}

func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, scheduler.Config{})
		r.Set([]scheduler.Machine{machine("b1", 1), machine("b2", 1, arm)})
		runs, waits := r.building(armBuild("a"), "b2"), r.queued(armBuild("b"))
		r.Lose("b2", "it was silent for 45 s")
		runs.hears(scheduler.Message{Op: scheduler.OpLost, Machine: "b2", Reason: "it was silent for 45 s"})
		time.Sleep(50 * time.Second)
		late := r.queued(armBuild("c"))
		time.Sleep(39 * time.Second)
		waits.hearsNothing()
		time.Sleep(time.Second)
		waits.hears(scheduler.Message{Op: scheduler.OpFail,
			Reason: "no builder for aarch64-linux is left: b2 was lost 90 s ago (it was silent for 45 s)"})
		late.hearsNothing()
		r.hook().try(armBuild("d"), scheduler.OpDecline, "") // there is no hope any more
		r.hook().try(build("e"), scheduler.OpAccept, "b1")

		// One that comes back in time serves those that wait.
		time.Sleep(40 * time.Second)
		r.Set([]scheduler.Machine{machine("b1", 1), machine("b2", 1, arm, coming)})
		time.Sleep(time.Hour)
		late.hearsNothing()
		r.Set([]scheduler.Machine{machine("b1", 1), machine("b2", 1, arm)})
		late.runs("b2")
		if got := r.Stats().Refused; got != 1 {
			t.Errorf("refused: %d", got)
		}
	})
}

// Patience begins anew each time that a machine was there again.
func TestPatienceWithAMachineThatComesAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, scheduler.Config{})
		r.Set([]scheduler.Machine{machine("b1", 1, coming)})
		waits := r.queued(build("a"))
		r.Lose("b1", "silent")
		time.Sleep(time.Minute)
		r.Set([]scheduler.Machine{machine("b1", 1, coming)})
		r.Lose("b1", "silent again")
		time.Sleep(89 * time.Second)
		waits.hearsNothing()
		time.Sleep(time.Second)
		waits.hears(scheduler.Message{Op: scheduler.OpFail, Reason: "no builder for x86_64-linux is left: b1 was lost 90 s ago (silent again)"})
	})
}

func TestWhoIsNamedWhenNobodyIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, scheduler.Config{Patience: time.Minute})
		r.Set([]scheduler.Machine{machine("b1", 1), machine("b2", 1), machine("b3", 1), machine("b4", 1), machine("b5", 1, arm)})
		h := r.building(build("a", "kvm", "big-parallel"), "b1")
		for _, name := range []string{"b5", "b4", "b3", "b2", "b1"} {
			time.Sleep(10 * time.Second)
			r.Lose(name, "silent")
		}
		h.hears(scheduler.Message{Op: scheduler.OpLost, Machine: "b1", Reason: "silent"})
		h.send(scheduler.Message{Op: scheduler.OpQueue, Tries: 1})
		time.Sleep(time.Minute)
		h.hears(scheduler.Message{Op: scheduler.OpFail, Reason: "no builder for x86_64-linux with big-parallel, kvm is left: " +
			"b1 was lost 60 s ago (silent), b2 was lost 70 s ago (silent), b3 was lost 80 s ago (silent) and 1 more before"})

		// Where there never was one, as after a restart, there is nobody to name, nor after an hour.
		r = newRig(t, scheduler.Config{Patience: time.Minute})
		r.Set([]scheduler.Machine{machine("b1", 1, arm)})
		r.Set(nil)
		time.Sleep(time.Hour) // after which nobody remembers it
		r.Set(nil)
		h = r.hook()
		b := armBuild("b")
		h.send(scheduler.Message{Op: scheduler.OpResume, Build: &b})
		time.Sleep(time.Minute)
		h.hears(scheduler.Message{Op: scheduler.OpFail, Reason: "no builder for aarch64-linux came within 1m0s"})
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, scheduler.Config{})
		r.Set([]scheduler.Machine{machine("b1", 2)})
		runs := r.building(build("a"), "b1")
		promised := r.hook()
		promised.try(build("b"), scheduler.OpAccept, "b1")
		waits := r.queued(build("c"))
		r.Close()
		stopped := scheduler.Message{Op: scheduler.OpFail, Reason: "the cluster was stopped, it takes no more builds"}
		waits.hears(stopped)
		promised.queue()
		promised.hears(stopped)
		r.hook().try(build("d"), scheduler.OpDeclinePermanently, "")
		runs.hearsNothing()
		r.wantRunning(map[string]int{"b1": 1})
		r.Set(nil)
		runs.hears(scheduler.Message{Op: scheduler.OpLost, Machine: "b1", Reason: "it is gone"})
		runs.send(scheduler.Message{Op: scheduler.OpQueue, Tries: 1})
		runs.hears(stopped)
	})
}

func TestResume(t *testing.T) {
	resume := func(b scheduler.Build, machine string) scheduler.Message {
		return scheduler.Message{Op: scheduler.OpResume, Build: &b, Machine: machine}
	}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, scheduler.Config{})
		first, second, lost, waits := r.hook(), r.hook(), r.hook(), r.hook()
		first.send(resume(build("a"), "b1"))
		second.send(resume(build("b"), "b1"))
		lost.send(resume(build("c"), "b2"))
		waits.send(resume(build("d"), ""))
		r.wantRunning(map[string]int{"b1": 2, "b2": 1})
		r.hook().try(build("e"), scheduler.OpPostpone, "") // the truth is about to be told
		time.Sleep(10 * time.Second)
		for _, h := range []*hook{first, second, lost, waits} {
			h.hearsNothing()
		}

		r.Set([]scheduler.Machine{machine("b1", 1)})
		lost.hears(scheduler.Message{Op: scheduler.OpLost, Machine: "b2", Reason: "it is gone"})
		r.wantRunning(map[string]int{"b1": 2}) // more than it has slots
		first.done(scheduler.OutcomeBuilt)
		waits.hearsNothing()
		second.done(scheduler.OutcomeBuilt)
		waits.runs("b1")

		late := r.hook()
		late.send(resume(build("f"), "b2"))
		late.hears(scheduler.Message{Op: scheduler.OpLost, Machine: "b2", Reason: "it is gone"})
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

// What restarts must not hand slots of hooks that it cuts off to others that it cuts off a
// moment later.
func TestTheEndOfServeIsNoEndOfBuilds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, scheduler.Config{})
		r.Set([]scheduler.Machine{machine("b1", 1)})
		r.building(build("a"), "b1")
		waits := r.queued(build("b"))
		ended := r.end()
		if ended != nil {
			t.Fatal(ended)
		}
		waits.isCutOff()
		if err := waits.Err(); !errors.Is(err, io.EOF) {
			t.Errorf("why it ended: %v", err)
		}
		if _, err := waits.Recv(t.Context()); !errors.Is(err, io.EOF) {
			t.Errorf("received: %v", err)
		}
		if got := r.Stats(); got.Ended[scheduler.OutcomeGaveUp] != 0 || got.Waits.Count != 1 {
			t.Errorf("stats: %+v", got)
		}
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
			`op=decline build=/nix/store/b.drv machine="" reason="no machine can do it"`,
		} {
			if !strings.Contains(r.log.String(), want) {
				t.Errorf("there is no %s in:\n%s", want, r.log)
			}
		}
	})
}
