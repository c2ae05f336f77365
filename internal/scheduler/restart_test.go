package scheduler_test

import (
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
)

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
