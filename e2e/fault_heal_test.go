package e2e_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// healedFaults are networks that fail and come back.
func healedFaults() []faultStory {
	return []faultStory{
		{name: "cut-for-120s", builders: 3, chaos: true, env: []string{oneIsReady}, tell: cutForTwoMinutes},
		{name: "cut-for-20s", builders: 5, env: []string{oneIsReady}, tell: func(f *fault) { blink(f, 20*time.Second) }},
		{name: "cut-for-5s", builders: 5, env: []string{oneIsReady}, tell: func(f *fault) { blink(f, 5*time.Second) }},
		{name: "stop-cut-for-20s", builders: 2, env: []string{oneIsReady}, tell: func(f *fault) { blinkDuringStop(f, 20*time.Second) }},
		{name: "stop-cut-for-5s", builders: 2, env: []string{oneIsReady}, tell: func(f *fault) { blinkDuringStop(f, 5*time.Second) }},
		{name: "cut-until-lost", builders: 2, env: []string{leaseEnv, oneIsReady}, tell: cutUntilLost},
	}
}

// A network that fails for less than a lease loses nothing, whatever its builders were at.
func blink(f *fault, d time.Duration) {
	builds, copies, idle, unverified, early := f.Builders[0], f.Builders[1], f.Builders[2], f.Builders[3], f.Builders[4]
	f.hangStore(unverified)
	f.builder(builds, "NIX_BUILDERS_SPEED_FACTOR=100", "NIX_BUILDERS_MAX_JOBS=1")
	f.exitsWithin(f.coordinator(), 0, patience)
	f.watch()

	// Each builder is brought to where it is to be when the network fails.
	seconds := fmt.Sprint(int(d.Seconds()) + 8)
	build := f.build("fan-in.nix", "--arg", "leaves", "1", "--argstr", "seconds", seconds)
	eventually(f.t, "a build on "+builds, func() bool { return f.building(builds) == 1 })
	f.builder(copies, "NIX_BUILDERS_SPEED_FACTOR=10", "NIX_BUILDERS_MAX_JOBS=1")
	f.builder(unverified)
	f.awaitState(copies, "ready")
	f.awaitState(unverified, "joined")
	copied := f.copyBack(copies, 400)
	f.do(f.Host(early).Cut)
	f.builder(idle)
	f.builder(early)
	f.awaitState(idle, "ready")

	cut := []string{builds, copies, idle, unverified, early}
	f.together(cut[:4], (*testbed.Host).Cut)
	select {
	case <-copied.Done():
		f.t.Fatalf("the output was here before the cut:\n%s", copied.Output())
	case <-time.After(d):
	}
	f.together(cut, (*testbed.Host).Heal)
	healed := time.Now()

	f.built(copied)
	f.built(build)
	f.awaitState(early, "ready")
	for _, host := range cut[:4] {
		f.await("one that has heard "+host, func(now apiclient.Cluster) bool {
			b, _ := builderOf(now, f.NameOf(host))
			return b.SilentSeconds != nil && *b.SilentSeconds < time.Since(healed).Seconds()
		})
	}
	f.t.Logf("all is well %v after the network is", time.Since(healed).Round(100*time.Millisecond))
	f.awaitState(unverified, "joined")
	f.trueFiles()

	f.stop()
	for _, host := range cut {
		f.exitsWithin(f.builders[host], 0, patience)
	}
	f.nobodyWasLost()
	f.gone()
}

// A stop waits for a builder whose network fails for a moment, and is told of its departure.
func blinkDuringStop(f *fault, d time.Duration) {
	f.serve(preferred)
	f.do(f.Host(victim).Cut)
	stop := f.start(testbed.Runner, "stop-nix-builders", "--wait", "60s")
	f.started = append(f.started, stop)
	f.awaitPhase("stopping")
	time.Sleep(d)
	f.do(f.Host(victim).Heal)
	f.exitsWithin(stop, 0, patience)
	f.says(stop, "Released 2 of 2 builders")
	for _, host := range f.Builders {
		f.exitsWithin(f.builders[host], 0, patience)
	}
	f.nobodyWasLost()
	f.gone()
}

// together does the same to many hosts at once.
func (f *fault) together(hosts []string, act func(*testbed.Host, context.Context) error) {
	f.t.Helper()
	errs := make([]error, len(hosts))
	var wg sync.WaitGroup
	for i, name := range hosts {
		wg.Go(func() { errs[i] = act(f.Host(name), within(f.t, patience)) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			f.t.Fatal(err)
		}
	}
}

// A builder that was lost and is heard again is what it was, under the id that it had.
func cutUntilLost(f *fault) {
	f.serve(preferred)
	before := f.awaitState(victim, "ready")
	at := f.do(f.Host(victim).Cut)
	f.untilLost(victim, at)
	f.do(f.Host(victim).Heal) // before it gives its coordinator up
	after := f.awaitState(victim, "ready")
	f.t.Logf("ready again %v after the cut", time.Since(at).Round(100*time.Millisecond))
	if before.Id == nil || after.Id == nil || *before.Id != *after.Id {
		f.t.Errorf("%s had the id %v and has %v", victim, before.Id, after.Id)
	}
	f.end(victim, survivor)
}

// A builder that is cut off for longer than two leases has ended by then, and well, since it
// was used. Its host can be used again.
func cutForTwoMinutes(f *fault) {
	const lease = 45 * time.Second // the default
	f.serve(preferred)
	build := f.stallOn(victim)
	at := f.do(f.Host(victim).Cut)
	f.movesWithin(build, at, lease+5*time.Second)
	b := f.awaitState(victim, "lost")
	contains(f.t, "the reason", b.Reason, "silent")
	f.trueFiles()
	agent := f.builders[victim]
	f.exitsWithin(agent, 0, 2*lease+window-time.Since(at))
	f.says(agent, "the coordinator is silent")
	time.Sleep(2*time.Minute - time.Since(at))
	f.do(f.Host(victim).Heal)
	f.awaitState(victim, "lost")
	f.trueFiles()
	f.builder(victim, preferred[victim]...)
	again := f.awaitState(victim, "ready")
	if again.Id == nil || b.Id == nil || *again.Id == *b.Id {
		f.t.Errorf("another instance has the id %v that the first one had", again.Id)
	}
	f.end(f.Builders...)
}
