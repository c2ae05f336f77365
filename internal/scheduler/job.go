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

// A job is the build of one hook. The scheduler's mutex guards it.
type job struct {
	hook  *conn
	stage stage
	build Build
	need  need
	// paths are what it would find at a machine that has them: inputs, and derivations that
	// make inputs.
	paths  []path
	inputs []path // as the hook named them
	avoid  []string
	on     *machine // whose slot it has; nil if none

	again  bool      // it had a slot before: it stands before those that had none
	queued time.Time // since when it waits
	vain   time.Time // since when it waits though no machine can do it; zero if one can
}

// A path is a store path. Hundreds of builds have most of theirs in common.
type path = unique.Handle[string]

func pathsOf(lists ...[]string) []path {
	var paths []path
	for _, p := range slices.Concat(lists...) {
		paths = append(paths, unique.Make(p))
	}
	return paths
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

// describe takes over what is known of the build itself.
func (j *job) describe(b Build) {
	j.build, j.need = b, needOf(b)
	j.inputs, j.avoid = nil, nil
	j.paths = pathsOf(b.Sources, b.Derivations)
}

// want takes over what a hook says when it wants a slot.
func (j *job) want(m Message) {
	j.avoid = m.Avoid
	if len(m.Inputs) > 0 {
		j.inputs = pathsOf(m.Inputs)
		j.paths = slices.Concat(j.inputs, pathsOf(j.build.Derivations))
	}
}

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
