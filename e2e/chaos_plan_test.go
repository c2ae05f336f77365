package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// A mishap is one thing that goes wrong, on purpose. How it is made and put right again is in
// chaos_mishaps_test.go.
type mishap struct {
	kind chaosKind
	host int     // the builder's, counted from 1; 0: not a builder's
	long float64 // how long it lasts, in leases
}

func (f mishap) String() string {
	s := string(f.kind)
	if f.host > 0 {
		s += fmt.Sprintf(" of builder-%d", f.host)
	}
	if f.long > 0 {
		s += fmt.Sprintf(" for %.2f leases", f.long)
	}
	return s
}

type chaosKind string

const (
	killAgent      chaosKind = "kill -9 of the agent"
	cancelAgent    chaosKind = "cancelling"
	killHost       chaosKind = "death"
	powerCut       chaosKind = "power cut"
	shortCut       chaosKind = "short cut"
	longCut        chaosKind = "cut"
	shortFreeze    chaosKind = "short suspension"
	longFreeze     chaosKind = "suspension"
	freezeAgent    chaosKind = "suspension of the agent"
	killDaemon     chaosKind = "kill -9 of nix-daemon"
	killTailscaled chaosKind = "kill -9 of tailscaled"
	releaseOne     chaosKind = "release by name"
	drainOne       chaosKind = "drain by name"
	killServer     chaosKind = "kill -9 of the server"
	freezeServer   chaosKind = "suspension of the server"
	cutControl     chaosKind = "cut of the control server"
)

// A chaosTrait says what may be expected of a kind of fault.
type chaosTrait struct {
	kind       chaosKind
	weight     int
	builder    bool    // it is a builder's
	least, top float64 // how long it lasts, in leases; 0: it is over at once
	loses      bool    // its builder may be lost
}

func chaosTraits() []chaosTrait {
	return []chaosTrait{
		{killAgent, 2, true, 0, 1.6, true},
		{cancelAgent, 1, true, 0, 0, true},
		{killHost, 2, true, 0.2, 1.6, true},
		{powerCut, 2, true, 0.2, 1.6, true},
		// ssh gives a silent builder up after two thirds of a lease, and TCP tries again when
		// the silence has doubled.
		{shortCut, 4, true, 0.05, 0.2, false},
		{longCut, 4, true, 1.2, 2.6, true},
		{shortFreeze, 2, true, 0.05, 0.2, false},
		{longFreeze, 2, true, 1.2, 2.6, true},
		{freezeAgent, 2, true, 1.2, 2.6, true},
		{killDaemon, 2, true, 0, 0, true},
		{killTailscaled, 1, true, 0, 0, true},
		{releaseOne, 1, true, 0, 0, true},
		{drainOne, 1, true, 0, 0, false},
		{killServer, 4, false, 0, 0, false},
		// Builders wait two leases from when they sent the last poll that was answered, which is
		// up to two thirds of a lease ago: it took a third, and so may have the one after it.
		{freezeServer, 3, false, 0.3, 1.2, false},
		{cutControl, 3, false, 0.3, 2.5, false},
	}
}

func traitOf(kind chaosKind) chaosTrait {
	for _, t := range chaosTraits() {
		if t.kind == kind {
			return t
		}
	}
	panic("no such kind of fault: " + kind)
}

// planStep is what goes wrong in a step of a run, at once: one thing or two. It depends on
// the seed and the step's number alone, so that a run can be told to make the same steps
// again.
func planStep(seed, step uint64, builders int) []mishap {
	rng := rand.New(rand.NewPCG(seed, step))
	kinds := chaosTraits()
	draw := func(want func(chaosTrait) bool) mishap {
		for {
			total := 0
			for _, k := range kinds {
				total += k.weight
			}
			n := rng.IntN(total)
			for _, k := range kinds {
				if n -= k.weight; n >= 0 {
					continue
				}
				f := mishap{kind: k.kind}
				if k.builder {
					f.host = 1 + rng.IntN(builders)
				}
				if k.top > 0 {
					f.long = k.least + (k.top-k.least)*rng.Float64()
				}
				if want(k) {
					return f
				}
				break
			}
		}
	}
	// The supervisor gives a server up that dies five times in a minute.
	mortal := (seed+step)%4 == 0
	allowed := func(k chaosTrait) bool { return k.kind != killServer || mortal }
	faults := []mishap{draw(allowed)}
	if rng.IntN(3) == 0 {
		first := faults[0]
		for {
			f := draw(allowed)
			server := func(k chaosKind) bool { return k == killServer || k == freezeServer }
			if f.kind == first.kind || f.host > 0 && f.host == first.host || server(f.kind) && server(first.kind) {
				continue
			}
			faults = append(faults, f)
			break
		}
	}
	return faults
}

// planReleases counts the builders that steps of a run release for good.
func planReleases(seed, from, to uint64, builders int) (n int) {
	for step := from; step < to; step++ {
		for _, f := range planStep(seed, step, builders) {
			if f.kind == releaseOne || f.kind == drainOne {
				n++
			}
		}
	}
	return n
}

// planLease is the lease of a run.
func planLease(seed uint64) time.Duration {
	if rand.New(rand.NewPCG(seed, 1<<63)).IntN(3) == 0 {
		return 9 * time.Second
	}
	return 6 * time.Second
}

// A plan is the same whenever it is asked for, differs by seed, has every kind of fault in
// it, and never takes more than it may.
func TestChaosPlan(t *testing.T) {
	tell := func(seed uint64) string {
		var s strings.Builder
		for step := range uint64(200) {
			fmt.Fprintln(&s, planStep(seed, step, 3))
		}
		return s.String()
	}
	first, again, other := tell(7), tell(7), tell(8)
	if first != again || first == other {
		t.Error("a plan does not depend on the seed, or on more than that")
	}
	seen := map[chaosKind]int{}
	kills := 0
	for step := range uint64(200) {
		faults := planStep(7, step, 3)
		for _, f := range faults {
			k := traitOf(f.kind)
			seen[f.kind]++
			if f.long < k.least || f.long > k.top || (f.host > 0) != k.builder || f.host > 3 {
				t.Errorf("step %d: %v is out of bounds", step, f)
			}
			if f.kind == killServer {
				kills++
			}
		}
		if step%4 == 3 && kills > 1 {
			t.Errorf("the server is killed %d times in 4 steps", kills)
		}
		if step%4 == 3 {
			kills = 0
		}
		if len(faults) == 2 && faults[0].host == faults[1].host && faults[0].host > 0 {
			t.Errorf("step %d: %v of the same builder", step, faults)
		}
	}
	for _, k := range chaosTraits() {
		if seen[k.kind] == 0 {
			t.Errorf("200 steps have no %s", k.kind)
		}
	}
}
