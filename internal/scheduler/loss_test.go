package scheduler_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
)

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
