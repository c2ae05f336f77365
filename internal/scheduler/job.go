package scheduler

import (
	"cmp"
	"slices"
	"strings"
	"time"
	"unique"
)

// A stage is how far a hook's build has come.
type stage int

const (
	fresh    stage = iota // nothing was accepted, or it is over
	accepted              // told that it may come; maybe with a slot
	waiting               // in the queue
	running               // has a slot and was told to run
	stranded              // ran; its machine was lost, and its hook told so
	moving                // ran, and ended there for no fault of its own
)

func (s stage) String() string {
	return [...]string{"fresh", "accepted", "waiting", "running", "stranded", "moving"}[s]
}

// endsWith tells whether a build can end so.
func (s stage) endsWith(outcome string) bool {
	ran := s == running || s == stranded
	switch outcome {
	case OutcomeBuilt, OutcomeMoved:
		return ran
	case OutcomeFailed:
		return ran || s == moving // and is not tried again
	case OutcomeGaveUp:
		return s != fresh
	}
	return false
}

// A job is the build of one hook. The scheduler's mutex guards it.
type job struct {
	hook  *conn
	stage stage
	build Build
	wish
	on *machine // whose slot it has; nil if none

	again  bool      // it had a slot before: it stands before those that had none
	queued time.Time // since when it waits
	vain   time.Time // since when it waits though no machine can do it; zero if one can
}

// A path is a store path. Hundreds of builds have most of theirs in common.
type path = unique.Handle[string]

func pathsOf(lists ...[]string) []path {
	var paths []path
	for _, list := range lists {
		paths = slices.Grow(paths, len(list))
		for _, p := range list {
			paths = append(paths, unique.Make(p))
		}
	}
	return paths
}

// A wish is what a hook says of the machine that it would like. Making one takes time, for a
// build may need thousands of paths.
type wish struct {
	need need
	// paths are what would not have to be copied to a machine that has them: inputs, and in
	// place of inputs whose names nobody knows yet, the derivations that make them.
	paths  []path
	inputs []path // with all that they refer to; nil until the hook knows them
	avoid  []string
}

func wishOf(m Message) wish {
	w := wish{need: needOf(*m.Build), avoid: m.Avoid}
	if len(m.Inputs) == 0 {
		w.paths = pathsOf(m.Build.Sources, m.Build.Derivations)
		return w
	}
	w.paths = pathsOf(m.Inputs, m.Build.Derivations)
	w.inputs = w.paths[:len(m.Inputs):len(m.Inputs)]
	return w
}

// A need is what a build wants of a machine, in a form that can be compared: the system, then
// the features in order.
type need string

func needOf(b Build) need {
	features := slices.Compact(slices.Sorted(slices.Values(b.Features)))
	return need(strings.Join(append([]string{b.System}, features...), "\x00"))
}

// String is for people: "x86_64-linux with kvm, nixos-test".
func (n need) String() string {
	system, features, some := strings.Cut(string(n), "\x00")
	if !some {
		return system
	}
	return system + " with " + strings.ReplaceAll(features, "\x00", ", ")
}

// bigParallel is the feature by which a derivation says that it uses as many cores as it gets.
const bigParallel = "big-parallel"

func (j *job) big() bool { return slices.Contains(j.build.Features, bigParallel) }

// avoids tells whether it failed on m for no fault of its own.
func (j *job) avoids(m *machine) bool { return slices.Contains(j.avoid, m.Name) }

// tell sends its hook a message, and the log the reason for it.
func (j *job) tell(m Message, why string) {
	j.hook.send(letter{m, j.build.Derivation, cmp.Or(why, m.Reason)})
}

// take gives the job a slot on m.
func (j *job) take(m *machine) {
	j.on = m
	m.used++
	if j.big() {
		m.big++
	}
}

// release gives its slot back, if it has one.
func (j *job) release() {
	if j.on == nil {
		return
	}
	j.on.used--
	if j.big() {
		j.on.big--
	}
	j.on = nil
}
