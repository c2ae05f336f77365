package coordinator

import (
	"fmt"
	"slices"
)

// When a builder is strained, and when it has room again. The gap keeps one that is at
// the edge from going back and forth.
const (
	diskLeast, diskRoom     = 0.10, 0.12 // of /nix free
	memoryLeast, memoryRoom = 0.05, 0.10 // of the memory free
	stallMost, stallCalm    = 20.0, 5.0  // percent of time that everything waited for memory
)

// strained says what the slot's holder is short of by its vitals; empty if of nothing.
// Processors are not looked at: a builder is there to use them. Nor is waiting for the
// disk: one build that reads its inputs makes all the work there is wait.
func (s *slot) strained() string {
	v, was := s.Vitals, s.strain != ""
	if v == nil {
		return ""
	}
	pick := func(least, room float64) float64 {
		if was {
			return room
		}
		return least
	}
	if total := v.StoreTotalBytes; total != nil && *total > 0 {
		if share := float64(v.StoreFreeBytes) / float64(*total); share < pick(diskLeast, diskRoom) {
			return fmt.Sprintf("short of disk: %s of %s free in /nix", gib(v.StoreFreeBytes), gib(*total))
		}
	}
	if o := s.Offer; o != nil && o.MemoryBytes > 0 {
		if share := float64(v.MemoryFreeBytes) / float64(o.MemoryBytes); share < pick(memoryLeast, memoryRoom) {
			return fmt.Sprintf("short of memory: %s of %s free", gib(v.MemoryFreeBytes), gib(o.MemoryBytes))
		}
	}
	if stall := v.MemoryStallPercent; stall != nil && *stall >= pick(stallMost, stallCalm) {
		return fmt.Sprintf("under memory pressure: all that runs there waits for memory %.0f %% of the time", *stall)
	}
	return ""
}

// balanceLocked cordons strained builders and brings back those that have room again. One
// that nobody else can stand in for is not cordoned: a slow builder is better than none,
// for without one Nix fails the build.
func (c *Cluster) balanceLocked() {
	for _, s := range c.slots {
		if s.State == Cordoned && s.strain == "" && s.staysLocked() {
			c.mustMoveLocked(s, StateReady, "has room again")
			return // which has balanced the others
		}
	}
	for _, s := range c.slots {
		if s.strain == "" || !s.staysLocked() {
			continue // which is what most check-ins find, of everyone
		}
		covered := c.coveredLocked(s)
		switch {
		case s.State == StateReady && s.strain != "" && covered && !c.cfg.KeepStrained:
			c.mustMoveLocked(s, Cordoned, s.strain)
			return
		case s.State == Cordoned && !covered:
			c.mustMoveLocked(s, StateReady, "nobody else builds what it builds ("+s.strain+")")
			return
		}
	}
}

// staysLocked tells whether nobody asked for the slot's builder to leave.
func (s *slot) staysLocked() bool { return s.ReleasedAt.IsZero() && s.DrainReason == "" }

// coveredLocked tells whether another ready builder can build all that the slot's can.
func (c *Cluster) coveredLocked(s *slot) bool {
	return slices.ContainsFunc(c.slots, func(o *slot) bool {
		return o != s && o.State == StateReady && o.staysLocked() && s.Offer != nil && o.Offer != nil &&
			containsAll(o.Offer.Systems, s.Offer.Systems) && containsAll(o.Offer.Features, s.Offer.Features)
	})
}

func containsAll(have, want []string) bool {
	for _, w := range want {
		if !slices.Contains(have, w) {
			return false
		}
	}
	return true
}
