package scheduler

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// waitLocked puts a job into the queue: at its end, or if it had a slot before, behind the
// others of its kind and before all that had none.
func (s *Scheduler) waitLocked(j *job, again bool) {
	j.stage, j.again = waiting, again
	at := len(s.queue)
	if again {
		for at = 0; at < len(s.queue) && s.queue[at].again; at++ {
		}
	}
	s.queue = slices.Insert(s.queue, at, j)
	if !s.ableLocked(j) {
		s.expireLocked()
	}
}

// leaveLocked takes a job off its machine and out of the queue.
func (s *Scheduler) leaveLocked(j *job) {
	j.release()
	if i := slices.Index(s.queue, j); i >= 0 {
		s.queue = slices.Delete(s.queue, i, i+1)
	}
}

// dispatchLocked gives slots to those that wait, in their order. One that fits nowhere does
// not hold up those behind it. It is called after every change, so that nobody ever waits
// while a slot that fits is free.
func (s *Scheduler) dispatchLocked() {
	if len(s.queue) == 0 || s.ended {
		return
	}
	free := 0
	for _, m := range s.machines {
		if m.free() {
			free += m.Slots - m.used
		}
	}
	unmet := make(map[need]bool) // what no free slot is for: asked once
	s.queue = slices.DeleteFunc(s.queue, func(j *job) bool {
		if free == 0 || unmet[j.need] {
			return false
		}
		chosen := s.chooseLocked(j)
		if chosen == nil {
			unmet[j.need] = len(j.avoid) == 0 // another may take what this one avoids
			return false
		}
		free--
		j.take(chosen.machine)
		s.runLocked(j, s.why(chosen))
		return true
	})
}

// runLocked tells a job that has a slot to run.
func (s *Scheduler) runLocked(j *job, why string) {
	j.stage, j.vain = running, time.Time{}
	waited := time.Since(j.queued)
	s.count.waits.observe(waited)
	j.on.held.add(j.paths) // Nix is about to copy them there
	j.tell(Message{Op: OpRun, Machine: j.on.Name, Line: j.on.Line, Waited: waited}, why)
}

func (s *Scheduler) failLocked(j *job, reason string) {
	j.stage, j.vain = fresh, time.Time{}
	s.count.refused++
	j.tell(Message{Op: OpFail, Reason: reason}, "")
}

// expireLocked fails those that have waited in vain for too long, and sets the timer for the
// next.
func (s *Scheduler) expireLocked() {
	if s.expiry != nil {
		s.expiry.Stop()
		s.expiry = nil
	}
	if s.ended {
		return
	}
	now := time.Now()
	var next time.Time
	able := make(map[need]bool)
	s.queue = slices.DeleteFunc(s.queue, func(j *job) bool {
		can, asked := able[j.need]
		if !asked {
			can = s.ableLocked(j)
			able[j.need] = can
		}
		switch {
		case can:
			j.vain = time.Time{}
			return false
		case j.vain.IsZero():
			j.vain = now
		}
		end := j.vain.Add(s.cfg.Patience)
		if !now.Before(end) {
			s.failLocked(j, s.hopelessLocked(j))
			return true
		}
		if next.IsZero() || end.Before(next) {
			next = end
		}
		return false
	})
	if !next.IsZero() {
		s.expiry = time.AfterFunc(next.Sub(now), func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.expireLocked()
		})
	}
}

// ableLocked tells whether a machine that is there could do the job, were it free and ready.
func (s *Scheduler) ableLocked(j *job) bool {
	for _, m := range s.machines {
		if m.can(&j.build) {
			return true
		}
	}
	return false
}

// hopeLocked tells whether one is there, or was lost so lately that it may come back.
func (s *Scheduler) hopeLocked(j *job) bool {
	for _, gone := range s.gone {
		if gone.can(&j.build) && time.Since(gone.at) < s.cfg.Patience {
			return true
		}
	}
	return s.ableLocked(j)
}

// hopelessLocked says why there is no machine for a job.
func (s *Scheduler) hopelessLocked(j *job) string {
	var lost []loss
	for _, gone := range s.gone {
		if gone.can(&j.build) {
			lost = append(lost, gone)
		}
	}
	if len(lost) == 0 {
		return fmt.Sprintf("no builder for %v came within %v", j.need, s.cfg.Patience)
	}
	slices.SortFunc(lost, func(a, b loss) int { return cmp.Or(b.at.Compare(a.at), strings.Compare(a.Name, b.Name)) })
	const most = 3 // to name; the last first
	var names []string
	for _, gone := range lost[:min(len(lost), most)] {
		names = append(names, fmt.Sprintf("%s was lost %d s ago (%s)", gone.Name, int(time.Since(gone.at).Seconds()), gone.reason))
	}
	text := strings.Join(names, ", ")
	if n := len(lost) - most; n > 0 {
		text += fmt.Sprintf(" and %d more before", n)
	}
	return fmt.Sprintf("no builder for %v is left: %s", j.need, text)
}

// unfitLocked says why no machine can do a job, and what there is.
func (s *Scheduler) unfitLocked(j *job) string {
	const most = 5 // kinds of machines to name
	var kinds []string
	for _, m := range s.machines {
		kind := strings.Join(m.Systems, ", ")
		if features := slices.Sorted(slices.Values(append(slices.Clone(m.Features), m.Mandatory...))); len(features) > 0 {
			kind += " with " + strings.Join(features, ", ")
		}
		if len(m.Mandatory) > 0 {
			kind += fmt.Sprintf(" (only builds that require %s)", strings.Join(m.Mandatory, ", "))
		}
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	kinds = slices.Compact(kinds)
	if len(kinds) > most {
		kinds = append(kinds[:most], fmt.Sprintf("%d other kinds", len(kinds)-most))
	}
	if len(kinds) == 0 {
		return fmt.Sprintf("no builder can do it, for it needs %v and none is there", j.need)
	}
	return fmt.Sprintf("no builder can do it, for it needs %v; there are builders for %s", j.need, strings.Join(kinds, "; for "))
}

// why gives the reason for a choice, if anybody reads it.
func (s *Scheduler) why(c *choice) string {
	if !s.log.Enabled(context.Background(), slog.LevelDebug) {
		return ""
	}
	return c.String()
}
