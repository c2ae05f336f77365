package coordinator

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// StopRequest asks for the release of builders.
type StopRequest struct {
	By string // who asks, for the reason that builders and readers see
	// Wait is how long to wait for departures at most; none if zero or less.
	Wait time.Duration
	// Drain is how long builds that run get to end before their builders are told to
	// leave. If zero or less, they are cut off.
	Drain time.Duration
	// Builders are the names to release; the cluster then goes on. If empty, the
	// whole cluster stops.
	Builders []string
}

// StopReport is what came of a stop.
type StopReport struct {
	Phase     Phase
	StoppedAt time.Time     // when the cluster, or the first of the named builders, was told; zero if not yet
	Took      time.Duration // how long the call took
	Cut       int           // builds that ran on these builders when they were told to leave
	Builders  []Released    // all, or those named, in the order of [Config.Builders]
	// Faults are what went wrong on the coordinator's own host: machines that could
	// not be emptied, files not restored, state not saved. They never hold a stop up.
	Faults []string
}

// Released is one builder in a [StopReport].
type Released struct {
	Name   string
	State  State
	Reason string
	Left   bool // it is not there any more, or never was
	Cut    int  // builds that ran on it when it was told to leave
	// After is the time from the stop to its departure; nil unless it left because
	// of the stop.
	After *time.Duration
}

// Stop releases the builders and waits for them to leave: all, or those named.
//
// A stop of the whole cluster first closes dispatch, then saves that the cluster is
// stopping, then ends every poll, query and event stream, then restores the host,
// and then waits for the departures. Stops that come meanwhile or later share it;
// each waits for its own [StopRequest.Wait], and tries again what is left to be
// restored. Once it began, a stop is carried through, also if ctx ends.
//
// With [StopRequest.Drain] builders that are ready first become draining: they get no new
// builds, and each is released as soon as none runs on it, at the latest when the time is
// over. A stop without it that comes meanwhile ends the drain at once; so does the
// shorter of two.
//
// A release by name is for good: who checks in under the name later is told to leave.
// It takes the named out of the quorum: while the cluster gathers, no more builders
// are waited for than are not released; when none is left the cluster fails.
//
// Errors: [ErrRemain] with a full report when someone did not leave in time or fell
// silent instead; [ErrNotExpected] for a name that is none of the cluster's, and then
// nothing was released; [ErrEnding] when [Cluster.Run] ended in the middle of a drain; the
// cause of ctx's end.
func (c *Cluster) Stop(ctx context.Context, req StopRequest) (StopReport, error) {
	began := time.Now()
	by := "requested"
	if who := oneLine(req.By); who != "" {
		by += " by " + who
	}
	scope, err := c.scope(req.Builders)
	if err != nil {
		return StopReport{}, fmt.Errorf("release builders: %w", err)
	}
	whole := len(req.Builders) == 0
	if req.Drain > 0 {
		if err := c.drain(ctx, scope, whole, by, req.Drain); err != nil {
			return StopReport{}, fmt.Errorf("drain builders: %w", err)
		}
	}
	wait, cancel := context.WithTimeout(ctx, max(0, req.Wait))
	defer cancel()
	if whole {
		c.dismantle(wait, "stop "+by)
	} else {
		c.release(scope, "release "+by)
	}
	c.awaitGone(wait, scope)

	report, remain := c.report(scope)
	report.Took = time.Since(began)
	switch {
	case len(remain) == 0:
		return report, nil
	case ctx.Err() != nil:
		return report, fmt.Errorf("stop: %w", context.Cause(ctx))
	}
	return report, fmt.Errorf("stop: %w: %s", ErrRemain, strings.Join(remain, ", "))
}

// dismantle carries out a stop up to the point where only departures are missing.
// What another call did is not done again. If another call is at it, dismantle waits
// for it until ctx ends; its own work goes on when ctx ends.
func (c *Cluster) dismantle(ctx context.Context, reason string) {
	select {
	case c.dismantling <- struct{}{}:
	default:
		select {
		case c.dismantling <- struct{}{}:
		case <-ctx.Done():
			return
		}
	}
	defer func() { <-c.dismantling }()
	ctx = context.WithoutCancel(ctx)

	c.mu.Lock()
	stopping, restored := c.phase >= Stopping, c.restored
	c.mu.Unlock()
	if !stopping {
		c.noteCut(ctx, c.slots)
		err := c.bounded(ctx, "stop dispatching builds", c.cfg.Dispatch.Close)
		c.mu.Lock()
		c.faultClose = err
		c.moveClusterLocked(Stopping, reason)
		c.mu.Unlock()
		c.commit() // tells everyone, also if it can't be saved
	}
	if !restored {
		err := c.bounded(ctx, "restore the host's files", c.cfg.Dispatch.Restore)
		c.mu.Lock()
		c.faultRestore, c.restored = err, err == nil
		c.edits++
		c.mu.Unlock()
		c.commit()
	}
}

// bounded calls f and gives it up, logged, when it takes too long; f then ends on
// its own, for its context has ended.
func (c *Cluster) bounded(ctx context.Context, what string, f func(context.Context) error) error {
	late := fmt.Errorf("not done within %v", c.cfg.DispatchTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.DispatchTimeout, late)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", what, err)
		c.cfg.Log.Error("the stop goes on without a part of it", "error", err)
	}
	return err
}

// scope are the slots of the named builders, or all if none is named.
func (c *Cluster) scope(names []string) (scope []*slot, err error) {
	if len(names) == 0 {
		return c.slots, nil
	}
	named := make(map[*slot]bool)
	for _, name := range names {
		s, ok := c.byLabel[c.cfg.Label(name)]
		if !ok {
			return nil, fmt.Errorf("%q: %w", name, ErrNotExpected)
		}
		named[s] = true
	}
	for _, s := range c.slots {
		if named[s] {
			scope = append(scope, s)
		}
	}
	return scope, nil
}

// release tells the slots' builders to leave.
func (c *Cluster) release(scope []*slot, reason string) {
	c.noteCut(context.Background(), scope)
	c.mu.Lock()
	for _, s := range scope {
		if !s.ReleasedAt.IsZero() || c.phase >= Stopping {
			continue
		}
		now := time.Now()
		s.ReleasedAt, s.ReleaseReason = now, reason
		state := s.State.String()
		c.emitLocked(Event{Type: BuilderReleased, Builder: s.Name, From: state, To: state, Reason: reason}, now)
	}
	c.settleLocked()
	c.mu.Unlock()

	c.commit()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range scope {
		s.endPollLocked()
	}
}

// awaitGone waits until none of the slots' holders is there, or ctx ends.
func (c *Cluster) awaitGone(ctx context.Context, scope []*slot) {
	for {
		c.mu.Lock()
		present := c.present
		if len(scope) < len(c.slots) {
			present = 0
			for _, s := range scope {
				if s.State.Present() {
					present++
				}
			}
		}
		changed := c.changedLocked()
		c.mu.Unlock()
		if present == 0 {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// report says how each of the slots' holders went, and in words who remains.
func (c *Cluster) report(scope []*slot) (report StopReport, remain []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	report = StopReport{Phase: c.phase, Builders: make([]Released, 0, len(scope))}
	now := time.Now()
	for _, s := range scope {
		r := Released{
			Name: s.Name, State: s.State, Reason: c.builderLocked(s, now).Reason,
			Left: !s.State.Present() && !s.Missed,
		}
		if s.LeftAfter != nil {
			after := *s.LeftAfter
			r.After = &after
		}
		if s.Cut != nil {
			r.Cut = *s.Cut
			report.Cut += r.Cut
		}
		if !r.Left {
			remain = append(remain, fmt.Sprintf("%s (%s, silent for %v)", s.Name, s.State, now.Sub(s.heard).Round(time.Second/10)))
		}
		if told := c.toldAtLocked(s); report.StoppedAt.IsZero() || told.Before(report.StoppedAt) {
			report.StoppedAt = told
		}
		report.Builders = append(report.Builders, r)
	}
	if len(scope) == len(c.slots) && !c.stoppedAt.IsZero() {
		report.StoppedAt = c.stoppedAt
	}
	report.StoppedAt = utc(report.StoppedAt)
	for _, err := range []error{c.faultClose, c.faultSave, c.faultRestore} {
		if err != nil {
			report.Faults = append(report.Faults, err.Error())
		}
	}
	return report, remain
}
