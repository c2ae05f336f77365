package e2e_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// victim is the builder that something happens to. Nix likes it best.
var victim, survivor = testbed.Builder(1), testbed.Builder(2)

// preferred makes Nix send what it can to the victim.
var preferred = map[string][]string{
	victim: {"NIX_BUILDERS_SPEED_FACTOR=100", "NIX_BUILDERS_MAX_JOBS=2"},
}

// way is how a host goes.
type way struct {
	name   string
	strike func(*fault) time.Time // to the victim; returns when
	silent bool                   // its processes live on
}

var ways = []way{
	{name: "killed", strike: func(f *fault) time.Time { return f.do(f.Host(victim).Kill) }},
	{name: "power", strike: func(f *fault) time.Time {
		at := f.do(f.Host(victim).Cut) // nobody hears it die
		f.do(f.Host(victim).Kill)
		return at
	}},
	{name: "cut", silent: true, strike: func(f *fault) time.Time { return f.do(f.Host(victim).Cut) }},
}

// moment is what a cluster is doing when its builder goes, and what comes of that.
type moment struct {
	name   string
	always []string // the ways that are told without -chaos too
	tell   func(*fault, way)
}

var moments = []moment{
	{"before-check-in", []string{"killed"}, goneBeforeCheckIn},
	{"joined", []string{"cut"}, goneWhenJoined},
	{"ready", []string{"killed", "cut"}, goneWhenReady},
	{"mid-build", []string{"power", "cut"}, goneMidBuild},
	{"copy-back", []string{"killed", "cut"}, goneDuringCopyBack},
	{"stop", []string{"power", "cut"}, goneDuringStop},
}

// builderFaults are the ends of a builder's host that nobody undoes.
func builderFaults() (stories []faultStory) {
	for _, m := range moments {
		for _, w := range ways {
			always := false
			for _, name := range m.always {
				always = always || name == w.name
			}
			stories = append(stories, faultStory{
				name: w.name + "-" + m.name, builders: 2, chaos: !always,
				env: []string{leaseEnv, oneIsReady}, tell: func(f *fault) { m.tell(f, w) },
			})
		}
	}
	return stories
}

// A builder that goes before it was heard of is one that never came: the step returns with
// those that did.
func goneBeforeCheckIn(f *fault, w way) {
	lonely := f.builder(victim, "NIX_BUILDERS_BUILDER_TIMEOUT=15")
	f.awaitLine(lonely, "looking for the coordinator")
	w.strike(f)
	f.builder(survivor)
	step := f.coordinator()
	f.exitsWithin(step, 0, patience)
	f.awaitState(survivor, "ready")
	f.awaitState(victim, "expected")
	if w.silent {
		f.exitsWithin(lonely, 1, patience) // it was of no use
		f.says(lonely, "nobody claimed builder "+f.NameOf(victim))
	}
	f.end(survivor)
}

// A builder whose store never answered is in nobody's way when it goes.
func goneWhenJoined(f *fault, w way) {
	f.hangStore(victim)
	agent := f.builder(victim)
	f.builder(survivor)
	f.exitsWithin(f.coordinator(), 0, patience)
	f.awaitState(victim, "joined")
	at := w.strike(f)
	f.untilLost(victim, at)
	f.freesItself(agent, w, at)
	f.end(survivor)
}

// hangStore makes a store of a host whose door opens and where nobody answers.
func (f *fault) hangStore(host string) {
	f.t.Helper()
	const daemon = "/usr/bin/nix-daemon"
	f.must(host, "mv", daemon, daemon+".real")
	if err := f.Host(host).WriteFile(within(f.t, patience), daemon, []byte("#!/bin/sh\nexec sleep 600\n"), 0o755); err != nil {
		f.t.Fatal(err)
	}
}

// A builder that goes while nobody needs it is out of Nix's sight when its lease ends.
func goneWhenReady(f *fault, w way) {
	f.serve(preferred)
	f.trueFiles()
	at := w.strike(f)
	b := f.untilLost(victim, at)
	contains(f.t, "the reason", b.Reason, "silent")
	f.trueFiles()
	f.freesItself(f.builders[victim], w, at)
	f.end(survivor)
}

// A build on a builder that goes is done elsewhere.
func goneMidBuild(f *fault, w way) {
	f.serve(preferred)
	build := f.stallOn(victim)
	at := w.strike(f)
	f.movesWithin(build, at, noticed)
	f.untilLost(victim, at)
	f.nothingSent()
	f.freesItself(f.builders[victim], w, at)
	f.end(survivor)
}

// So it is with a build that is done, but whose output is still there.
func goneDuringCopyBack(f *fault, w way) {
	f.serve(preferred)
	build := f.copyBack(victim, 300)
	at := w.strike(f)
	f.untilLost(victim, at)
	f.nothingSent()
	f.freesItself(f.builders[victim], w, at)
	f.movesWithin(build, at, noticed+patience) // it is built and copied once more
	f.end(survivor)
}

// copyBack builds an output of many megabytes on a host, and returns when the build is done
// and the output on its way.
func (f *fault) copyBack(host string, megabytes int) *fleet.Process {
	f.t.Helper()
	p := f.build("big.nix", "--arg", "megabytes", fmt.Sprint(megabytes))
	f.started = append(f.started, p)
	eventually(f.t, "a build on "+host, func() bool { return f.building(host) == 1 })
	f.awaitLine(p, "' from '"+strings.ToLower(f.NameOf(host)))
	if building, sent := f.building(host), f.sent(host); building != 0 || sent != 1 {
		f.t.Fatalf("%d builds of %d that were sent run while the output is copied, want 0 of 1:\n%s", building, sent, p.Output())
	}
	return p
}

// nothingSent wants the coordinator's Nix to be done with the victim.
func (f *fault) nothingSent() {
	f.t.Helper()
	eventually(f.t, "without a build for "+victim, func() bool { return f.sent(victim) == 0 })
}

// A stop does not wait for ever for a builder that goes meanwhile, says which it was, and
// fails; the cluster is stopped all the same.
func goneDuringStop(f *fault, w way) {
	f.serve(preferred)
	goOn := f.freeze(victim) // that it does not leave before it goes
	stop := f.start(testbed.Runner, "stop-nix-builders", "--wait", "40s")
	f.started = append(f.started, stop)
	f.awaitPhase("stopping")
	w.strike(f)
	if w.silent {
		goOn()
	}
	f.exitsWithin(stop, 1, noticed)
	f.says(stop, f.NameOf(victim)+" did NOT leave", "stopped all the same")
	f.exitsWithin(f.builders[survivor], 0, patience)
	if w.silent { // it was told, or not, when it was cut off
		f.exitsWithin(f.builders[victim], 0, patience)
	}
	f.gone()
}

// freesItself wants the agent of a host that lives on, but hears nobody, to end well within
// two leases, since it was used.
func (f *fault) freesItself(agent *fleet.Process, w way, since time.Time) {
	f.t.Helper()
	if !w.silent {
		return
	}
	f.exitsWithin(agent, 0, 2*shortLease+window-time.Since(since))
	f.says(agent, "the coordinator is silent")
	if n := f.building(victim); n != 0 {
		f.t.Errorf("%s still builds, %d builds, when its agent has ended", victim, n)
	}
}

// freeze keeps a host from hearing anything on the tailnet; the function it returns ends
// that.
func (f *fault) freeze(host string) (thaw func()) {
	f.t.Helper()
	pids := f.pids(host, "tailscaled")
	if len(pids) != 1 {
		f.t.Fatalf("%s has the tailscaled %v, want one", host, pids)
	}
	f.must(host, "kill", "-STOP", pids[0])
	return func() { f.t.Helper(); f.must(host, "kill", "-CONT", pids[0]) }
}
