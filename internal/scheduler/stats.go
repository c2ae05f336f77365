package scheduler

import (
	"maps"
	"slices"
	"time"
)

// Stats are what a scheduler has and had.
type Stats struct {
	Waiting map[string]int // builds that wait for a slot now, by system
	Running map[string]int // slots that are taken now, by machine
	// Shunned are machines that get no builds for a while, and until when.
	Shunned map[string]time.Time
	// Answers counts tries by what was answered, see [OpAccept] and those after it.
	Answers map[string]uint64
	// Ended counts how builds ended on machines, by outcome. [OutcomeMoved] are the moves:
	// such a build ends again, elsewhere.
	Ended map[string]uint64
	// Refused counts accepted builds for which there was no slot in the end.
	Refused uint64
	// Waits are the times from a build's wish for a slot to its slot.
	Waits Histogram
}

// A Histogram is a number of times by their length.
type Histogram struct {
	Count   uint64
	Sum     time.Duration
	Buckets []Bucket // by ascending bound
}

// A Bucket counts the times up to a bound, those of shorter buckets included.
type Bucket struct {
	Most  time.Duration
	Count uint64
}

func (h *Histogram) observe(d time.Duration) {
	h.Count++
	h.Sum += d
	for i := range h.Buckets {
		if d <= h.Buckets[i].Most {
			h.Buckets[i].Count++
		}
	}
}

// counters are what has been since the scheduler began.
type counters struct {
	answers, ended map[string]uint64
	refused        uint64
	waits          Histogram
}

func newCounters() counters {
	c := counters{
		answers: make(map[string]uint64),
		ended:   map[string]uint64{OutcomeBuilt: 0, OutcomeFailed: 0, OutcomeMoved: 0, OutcomeGaveUp: 0},
	}
	for _, op := range []string{OpAccept, OpDecline, OpPostpone, OpDeclinePermanently} {
		c.answers[op] = 0
	}
	for _, most := range []time.Duration{
		time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, time.Second,
		5 * time.Second, 15 * time.Second, time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour,
	} {
		c.waits.Buckets = append(c.waits.Buckets, Bucket{Most: most})
	}
	return c
}

// Stats tells how things are.
func (s *Scheduler) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := Stats{
		Waiting: make(map[string]int),
		Running: s.runningLocked(),
		Shunned: make(map[string]time.Time),
		Answers: maps.Clone(s.count.answers),
		Ended:   maps.Clone(s.count.ended),
		Refused: s.count.refused,
		Waits:   s.count.waits,
	}
	stats.Waits.Buckets = slices.Clone(stats.Waits.Buckets)
	now := time.Now()
	for _, m := range s.machines {
		if m.shunnedAt(now) {
			stats.Shunned[m.Name] = m.shunned
		}
		for _, system := range m.Systems {
			stats.Waiting[system] = 0 // a queue that is empty is one, too
		}
	}
	for _, j := range s.queue {
		stats.Waiting[j.build.System]++
	}
	return stats
}
