package coordinator

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"
)

const (
	// drainLook is how often a drain looks what still runs.
	drainLook = 250 * time.Millisecond
	// drainIdle is how long nothing has to run on a builder that is drained: what Nix
	// was about to send when the builder went out of its file comes within it.
	drainIdle = time.Second
	// countTime bounds the counting of the builds that run.
	countTime = 2 * time.Second
)

// drain lets the builds on the slots' builders end, for at most as long as bound, and
// releases each builder that has none. It returns early when the cluster stops. Once it
// began, it goes on when ctx ends, but not beyond the end of Run: [ErrEnding].
func (c *Cluster) drain(ctx context.Context, scope []*slot, whole bool, by string, bound time.Duration) error {
	c.mu.Lock()
	if c.phase != Ready {
		c.mu.Unlock() // nothing was built yet, or all is over
		return nil
	}
	reason := "drain " + by
	if whole && (!c.draining || bound < c.drainFor) {
		c.draining, c.drainReason, c.drainFor = true, cmp.Or(c.drainReason, reason), bound
		c.edits++
	}
	for _, s := range scope {
		if s.ReleasedAt.IsZero() && (s.DrainReason == "" || bound < s.DrainFor) {
			s.DrainReason, s.DrainFor = cmp.Or(s.DrainReason, reason), bound
			c.edits++
		}
	}
	for _, s := range scope {
		if s.ReleasedAt.IsZero() && (s.State == StateReady || s.State == Cordoned) {
			c.mustMoveLocked(s, Draining, reason)
		}
	}
	c.mu.Unlock()
	c.commit()

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), bound)
	defer cancel()
	look := time.NewTicker(drainLook)
	defer look.Stop()
	idle := make(map[*slot]time.Time) // since when nothing was seen on it
	for {
		counts, err := c.builds(ctx)
		if err != nil {
			c.cfg.Log.Warn("what still runs on draining builders is not known", "error", err)
		}
		if c.drained(scope, counts, err == nil, idle) {
			return nil
		}
		select {
		case <-look.C:
		case <-c.stopping:
			return nil
		case <-c.ending:
			return ErrEnding
		case <-ctx.Done():
			return nil
		}
	}
}

// drained releases the builders on which nothing runs, says on the others how many builds
// do, and tells whether nobody is left to be drained.
func (c *Cluster) drained(scope []*slot, counts map[string]int, known bool, idle map[*slot]time.Time) (all bool) {
	var free []*slot
	left, noted := 0, false
	c.mu.Lock()
	for _, s := range scope {
		if !s.ReleasedAt.IsZero() || !s.State.Answered() && s.State != Joined {
			continue // it was told to leave, or is not there
		}
		left++
		if s.State == Joined { // it gets no builds
			free = append(free, s)
			continue
		}
		n := counts[strings.ToLower(s.Name)]
		switch {
		case !known || n > 0:
			delete(idle, s)
		case idle[s].IsZero():
			idle[s] = time.Now()
		case time.Since(idle[s]) >= drainIdle:
			free = append(free, s)
		}
		note := "no build is running; about to be released"
		if n > 0 {
			note = fmt.Sprintf("%s; builds that still run: %d", s.DrainReason, n)
		}
		if known && s.note != note {
			s.note, noted = note, true
		}
	}
	if noted {
		c.bumpLocked()
		c.wakeLocked()
	}
	c.mu.Unlock()
	if noted {
		c.commit()
	}
	if len(free) > 0 {
		c.release(free, "drained: nothing runs on it any more")
	}
	return left == len(free)
}

// builds counts the builds that run on each builder, within a bound.
func (c *Cluster) builds(ctx context.Context) (map[string]int, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), countTime)
	defer cancel()
	return c.cfg.Dispatch.Builds(ctx)
}

// noteCut notes how many builds run on the slots' builders, which are about to be told to
// leave.
func (c *Cluster) noteCut(ctx context.Context, scope []*slot) {
	c.mu.Lock()
	some := false
	for _, s := range scope {
		some = some || s.State.Answered() && s.ReleasedAt.IsZero() && c.phase < Stopping
	}
	c.mu.Unlock()
	if !some {
		return
	}
	counts, err := c.builds(ctx)
	if err != nil {
		c.cfg.Log.Warn("how many builds the stop cuts off is not known", "error", err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range scope {
		if n := counts[strings.ToLower(s.Name)]; s.State.Answered() && s.ReleasedAt.IsZero() && c.phase < Stopping {
			s.Cut = &n
			c.edits++
		}
	}
}

// undrainedLocked are the drains that the process before began and did not finish. Their
// time begins anew.
func (c *Cluster) undrainedLocked() []StopRequest {
	if c.phase != Ready {
		return nil
	}
	if c.draining {
		return []StopRequest{{By: "a coordinator's process that ended", Drain: c.drainFor}}
	}
	var all []StopRequest
	for _, s := range c.slots {
		if s.DrainReason != "" && s.ReleasedAt.IsZero() {
			all = append(all, StopRequest{By: "a coordinator's process that ended", Drain: s.DrainFor, Builders: []string{s.Name}})
		}
	}
	return all
}
