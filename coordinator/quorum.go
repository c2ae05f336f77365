package coordinator

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// quorum is how far a cluster is from what it needs before builds may start. Builders
// that were released count for nothing: no more are needed than are left.
type quorum struct {
	all           int // builders that are expected
	ready, needed int
	systems       []systemQuorum // by system
}

// systemQuorum is the part of the quorum that builds for one system.
type systemQuorum struct {
	system        string
	ready, needed int
}

func (c *Cluster) quorumLocked() quorum {
	q := quorum{all: len(c.slots)}
	left := 0
	for _, s := range c.slots {
		if !s.ReleasedAt.IsZero() {
			continue
		}
		left++
		if s.State == StateReady {
			q.ready++
		}
	}
	q.needed = min(c.cfg.Quorum, left)
	for _, system := range slices.Sorted(maps.Keys(c.cfg.SystemQuorum)) {
		part := systemQuorum{system: system}
		could := 0
		for _, s := range c.slots {
			// Of a builder that never checked in nobody knows what it builds for.
			if !s.ReleasedAt.IsZero() || s.Offer != nil && !slices.Contains(s.Offer.Systems, system) {
				continue
			}
			could++
			if s.State == StateReady {
				part.ready++
			}
		}
		part.needed = c.cfg.SystemQuorum[system]
		if left < len(c.slots) { // a release must not make it wait for ever
			part.needed = min(part.needed, could)
		}
		q.systems = append(q.systems, part)
	}
	return q
}

// met tells whether builds may start.
func (q quorum) met() bool {
	for _, s := range q.systems {
		if s.ready < s.needed {
			return false
		}
	}
	return q.ready >= q.needed
}

func (q quorum) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d builders are ready, %d needed", q.ready, q.all, q.needed)
	for i, s := range q.systems {
		sep := ", "
		if i == 0 {
			sep = "; "
		}
		fmt.Fprintf(&b, "%s%s: %d of %d needed", sep, s.system, s.ready, s.needed)
	}
	return b.String()
}
