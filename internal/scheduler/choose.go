package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// machine is a Machine and what builds there are known to do to it.
type machine struct {
	Machine
	used int // slots that are taken, those of builds that have not begun included
	big  int // of them, by builds that use all cores
	held held

	faults  int         // builds that ended there for no fault of theirs, since one ended well
	shunned time.Time   // until when it gets no builds for that
	wake    *time.Timer // fires then; nil if it was never shunned
}

// can tells whether the machine could do a build, if it had room.
func (m *Machine) can(b *Build) bool {
	if m.Slots < 1 || b.System != "builtin" && !slices.Contains(m.Systems, b.System) {
		return false
	}
	for _, f := range b.Features {
		if !slices.Contains(m.Features, f) && !slices.Contains(m.Mandatory, f) {
			return false
		}
	}
	for _, f := range m.Mandatory {
		if !slices.Contains(b.Features, f) {
			return false
		}
	}
	return true
}

func (m *machine) free() bool {
	return m.State == Ready && m.used < m.Slots && !m.shunnedAt(time.Now())
}

// load is how full the machine were with one build more, beside how fast it is. Equal
// shares are equal numbers: both operands are exact, and division rounds the same.
func (m *machine) load() float64 {
	return float64(m.used+1) / (float64(m.Slots) * float64(max(m.Speed, 1)))
}

// A candidate is a machine that could take a job now, as it compares with others.
type candidate struct {
	*machine
	crowded int     // 1 if one of the two would have all cores to itself, and hasn't
	load    float64 // of the machine with the job
	has     int64   // of the job's paths, in bytes; below zero if not added up yet
}

func (j *job) candidate(m *machine) *candidate {
	c := &candidate{machine: m, load: m.load(), has: -1}
	if m.big > 0 || j.big() && m.used > 0 {
		c.crowded = 1
	}
	return c
}

// bytes adds up once, and only if it comes to that: it is what takes time.
func (c *candidate) bytes(s *sizes, paths []path) int64 {
	if c.has < 0 {
		c.has = s.held(&c.held, paths)
	}
	return c.has
}

// compare is below zero if a is the better machine for j, and says by what. It is the whole
// policy, in the order of docs/scheduling.md. No two machines are equal.
func (j *job) compare(a, b *candidate, s *sizes) (int, criterion) {
	if d := cmp.Compare(a.crowded, b.crowded); d != 0 {
		return d, byCrowding
	}
	if d := cmp.Compare(a.load, b.load); d != 0 {
		return d, byLoad
	}
	if d := cmp.Compare(b.bytes(s, j.paths), a.bytes(s, j.paths)); d != 0 {
		return d, byPaths
	}
	if d := cmp.Compare(float64(b.Memory)/float64(b.Slots), float64(a.Memory)/float64(a.Slots)); d != 0 {
		return d, byMemory
	}
	return cmp.Compare(a.Name, b.Name), byName
}

// A criterion is by what one machine was better than the next.
type criterion int

const (
	byNecessity criterion = iota // there was no other
	byCrowding
	byLoad
	byPaths
	byMemory
	byName
)

// A choice is the machine for a job, and why it was chosen.
type choice struct {
	*candidate
	criterion criterion
	next      *candidate // the second best; nil if none
}

// chooseLocked returns the best machine that could take the job now; nil if none can.
func (s *Scheduler) chooseLocked(j *job) *choice {
	var best, next *candidate
	elsewhere := len(j.avoid) > 0 && s.elsewhereLocked(j)
	for _, m := range s.machines {
		if !m.free() || !m.can(&j.build) || elsewhere && j.avoids(m) {
			continue
		}
		switch c := j.candidate(m); {
		case best == nil || s.betterLocked(j, c, best):
			best, next = c, best
		case next == nil || s.betterLocked(j, c, next):
			next = c
		}
	}
	if best == nil {
		return nil
	}
	chosen := &choice{candidate: best, next: next}
	if next != nil {
		_, chosen.criterion = j.compare(best, next, &s.sizes)
	}
	return chosen
}

func (s *Scheduler) betterLocked(j *job, a, b *candidate) bool {
	d, _ := j.compare(a, b, &s.sizes)
	return d < 0
}

// String is the reason, for the log. It is to be called with the scheduler's mutex held.
func (c *choice) String() string {
	switch c.criterion {
	case byCrowding:
		if c.next.big > 0 {
			return fmt.Sprintf("on %s runs a build that uses all cores", c.next.Name)
		}
		return fmt.Sprintf("it uses all cores, and %s has other builds", c.next.Name)
	case byLoad:
		return fmt.Sprintf("load %.3g beside %.3g of %s", c.load, c.next.load, c.next.Name)
	case byPaths:
		return fmt.Sprintf("it has %.1f MiB of the inputs, %s has %.1f", mebi(c.has), c.next.Name, mebi(c.next.has))
	case byMemory:
		return fmt.Sprintf("it has more memory a slot than %s", c.next.Name)
	case byName:
		return fmt.Sprintf("as good as %s", c.next.Name)
	default:
		return "the only one with a free slot"
	}
}

func mebi(bytes int64) float64 { return float64(bytes) / (1 << 20) }
