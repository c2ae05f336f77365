package scheduler_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
)

// Where a build goes when several machines have room: the criteria of docs/scheduling.md, each
// against those that come after it.
func TestChoice(t *testing.T) {
	const big = "big-parallel"
	type machines = []scheduler.Machine
	// A placed build was put on the one machine that was there at the time.
	type placed struct {
		on       string
		features []string
	}
	for _, test := range []struct {
		name     string
		machines machines
		before   []placed
		build    scheduler.Build
		want     string
	}{
		{"the emptier", machines{machine("b1", 4), machine("b2", 4)}, []placed{{on: "b1"}}, build("x"), "b2"},
		{"the larger", machines{machine("b1", 2), machine("b2", 4)}, nil, build("x"), "b2"},
		{"the larger, as full as the smaller", machines{machine("b1", 2), machine("b2", 4)},
			[]placed{{on: "b2"}, {on: "b2"}}, build("x"), "b1"},
		{"the faster", machines{machine("b1", 4), machine("b2", 4, speed(2))}, nil, build("x"), "b2"},
		{"the faster, until it is fuller than it is faster", machines{machine("b1", 4), machine("b2", 4, speed(2))},
			[]placed{{on: "b2"}, {on: "b2"}}, build("x"), "b1"},
		{"the emptier over more memory", machines{machine("b1", 4), machine("b2", 4, memory(1<<40))},
			[]placed{{on: "b2"}}, build("x"), "b1"},
		{"more memory a slot", machines{machine("b1", 4, memory(8<<30)), machine("b2", 4, memory(16<<30))}, nil, build("x"), "b2"},
		{"the first by name", machines{machine("b2", 4), machine("b1", 4)}, nil, build("x"), "b1"},
		{"big: an idle one, though smaller", machines{machine("b1", 64), machine("b2", 2)},
			[]placed{{on: "b1"}}, build("x", big), "b2"},
		{"big: if there is no idle one, any", machines{machine("b1", 4), machine("b2", 4)},
			[]placed{{on: "b1"}, {on: "b2"}, {on: "b2"}}, build("x", big), "b1"},
		{"not beside a big one", machines{machine("b1", 64), machine("b2", 2)},
			[]placed{{on: "b1", features: []string{big}}}, build("x"), "b2"},
		{"beside a big one if there is no other", machines{machine("b1", 4), machine("b2", 1)},
			[]placed{{on: "b1", features: []string{big}}, {on: "b2"}}, build("x"), "b1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, scheduler.Config{})
				for i, p := range test.before {
					b := build(fmt.Sprint("before-", i), p.features...)
					h := r.hook()
					h.send(scheduler.Message{Op: scheduler.OpResume, Build: &b, Machine: p.on})
				}
				r.Set(test.machines)
				r.hook().try(test.build, scheduler.OpAccept, test.want)
			})
		})
	}
}

// built sees a build that was accepted to its good end.
func built(h *hook, inputs ...string) {
	h.queue(inputs...)
	synctest.Wait()
	<-h.Messages()
	h.done(scheduler.OutcomeBuilt)
	h.Close()
}

// A chain of builds stays where its inputs are, among machines that are as good otherwise.
func TestBuildsGoWhereTheirInputsAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, scheduler.Config{})
		// b2 and b3 come to have something, one after the other.
		r.Set([]scheduler.Machine{machine("b2", 4)})
		lib := build("lib")
		lib.Outputs = []string{"/nix/store/lib"}
		h := r.hook()
		h.try(lib, scheduler.OpAccept, "b2")
		built(h, "/nix/store/stdenv")
		all := []scheduler.Machine{machine("b1", 4), machine("b2", 4), machine("b3", 4)}
		r.Set(all)
		r.Set(all[1:])
		other := build("other")
		h = r.hook()
		h.try(other, scheduler.OpAccept, "b2") // by name: it has no inputs
		built(h)
		r.Set(all)

		// By the derivation that made its input, for it knows no output.
		app := build("app")
		app.Derivations = []string{lib.Derivation}
		h = r.hook()
		h.try(app, scheduler.OpAccept, "b2")
		built(h, "/nix/store/stdenv", "/nix/store/lib")

		// By a source.
		doc := build("doc")
		doc.Sources = []string{"/nix/store/stdenv", "/nix/store/doc-src"}
		h = r.hook()
		h.try(doc, scheduler.OpAccept, "b2")
		built(h, "/nix/store/stdenv", "/nix/store/doc-src")

		// By the inputs of one that waits.
		r.Set([]scheduler.Machine{machine("b1", 1, coming), machine("b2", 1, coming)})
		waits := r.queued(build("late"))
		waits.Close()
		h = r.hook()
		h.try(build("late"), scheduler.OpAccept, "")
		h.queue("/nix/store/lib")
		r.Set([]scheduler.Machine{machine("b1", 1), machine("b2", 1)})
		h.runs("b2")

		// A machine that was lost has nothing to its name.
		r.Set([]scheduler.Machine{machine("b1", 1)})
		h.hears(scheduler.Message{Op: scheduler.OpLost, Machine: "b2", Reason: "it is gone"})
		h.Close()
		r.Set([]scheduler.Machine{machine("b1", 1), machine("b2", 1)})
		r.hook().try(doc, scheduler.OpAccept, "b1")
	})
}

// Inputs count by their size, as far as that is known.
func TestBuildsGoWhereMostBytesAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, scheduler.Config{})
		both := []scheduler.Machine{machine("b1", 4), machine("b2", 4)}
		few, many := build("few"), build("many")
		few.Outputs, many.Outputs = []string{"/nix/store/big"}, []string{"/nix/store/small", "/nix/store/unknown"}
		for i, b := range []scheduler.Build{few, many} {
			resting(&both[1-i])
			r.Set(both)
			both[1-i].State = scheduler.Ready
			h := r.hook()
			h.try(b, scheduler.OpAccept, both[i].Name)
			built(h)
		}
		r.Set(both)
		needs := build("needs")
		needs.Sources = slices.Concat(few.Outputs, many.Outputs)
		for _, step := range []struct {
			path  string
			bytes int64
			want  string
		}{
			{"/nix/store/big", 10, "b2"}, // 10 bytes beside two unknown
			{"/nix/store/big", 3 << 20, "b1"},
			{"/nix/store/small", 1 << 20, "b1"},
			{"/nix/store/small", 4 << 20, "b2"},
			{"/nix/store/small", -1, "b1"},
		} {
			r.Sized(step.path, step.bytes)
			h := r.hook()
			h.try(needs, scheduler.OpAccept, step.want)
			h.Close()
			synctest.Wait()
		}
	})
}

// What uses all cores keeps others away for as long as it runs, and not longer.
func TestABigBuildEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, scheduler.Config{})
		r.Set([]scheduler.Machine{machine("b1", 4), machine("b2", 4)})
		big := r.building(build("a", "big-parallel"), "b1")
		small := r.building(build("b"), "b2")
		r.building(build("c"), "b2")
		big.done(scheduler.OutcomeBuilt)
		small.done(scheduler.OutcomeBuilt)
		r.building(build("d"), "b1")
		r.building(build("e"), "b1") // by name, for both have one
	})
}

// Of what a machine has, the oldest is forgotten when there is too much.
func TestWhatAMachineHasIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, scheduler.Config{})
		wants := func(path, machine string) {
			t.Helper()
			b := build("wants")
			b.Sources = []string{path}
			h := r.hook()
			h.try(b, scheduler.OpAccept, machine)
			h.Close()
			synctest.Wait()
		}
		all := []scheduler.Machine{machine("b1", 1), machine("b2", 1)}
		r.Set(all[1:])
		r.building(build("first"), "b2").Close() // has nothing
		paths := somePaths(40_000)
		for _, some := range [][]string{paths[:100], paths[100:20_000], paths[20_000:]} {
			r.Set(all[1:])
			h := r.hook()
			h.try(build("fills"), scheduler.OpAccept, "b2")
			h.queue(some...)
			h.runs("b2")
			h.Close()
			synctest.Wait()
			r.Set(all)
			wants(some[len(some)-1], "b2")
		}
		wants(paths[0], "b1")      // by name
		wants(paths[30_000], "b2") // not all is forgotten
	})
}
