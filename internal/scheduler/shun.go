package scheduler

import "time"

// A machine on which a build ended for no fault of its own is left alone for a while: what
// was wrong there is wrong for the next build too, and it may be about to be lost. Each time
// that it happens again the while is longer, until a build ends well there.
const (
	firstShun = time.Second
	maxShun   = 30 * time.Second
)

// shunnedAt tells whether a machine is left alone now.
func (m *machine) shunnedAt(now time.Time) bool { return now.Before(m.shunned) }

// blameLocked has a machine left alone. Builds that fail there at the same time count once.
func (s *Scheduler) blameLocked(m *machine) {
	now := time.Now()
	if m.shunnedAt(now) {
		return
	}
	while := min(firstShun<<(2*min(m.faults, 8)), maxShun)
	m.faults++
	m.shunned = now.Add(while)
	m.wake = time.AfterFunc(while, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.dispatchLocked()
	})
}

// trust says that a build ended well on a machine, or that the machine is done with.
func (m *machine) trust() {
	m.faults, m.shunned = 0, time.Time{}
	if m.wake != nil {
		m.wake.Stop()
		m.wake = nil
	}
}

// elsewhereLocked tells whether a job has a machine to wait for on which it has not failed.
func (s *Scheduler) elsewhereLocked(j *job) bool {
	for _, m := range s.machines {
		if m.State == Ready && m.can(&j.build) && !j.avoids(m) {
			return true
		}
	}
	return false
}
