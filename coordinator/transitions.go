package coordinator

import (
	"fmt"
	"slices"
	"time"
)

// transitions is the whole of what may become of a builder. Joined leads to
// Joined, and StateReady and Rejected back to it, when a new instance checks in.
var transitions = map[State][]State{
	Expected:   {Joined},
	Joined:     {Joined, StateReady, Lost, Departed, Rejected},
	StateReady: {Joined, Cordoned, Draining, Lost, Departed, Rejected},
	Cordoned:   {Joined, StateReady, Draining, Lost, Departed, Rejected},
	Draining:   {Joined, Lost, Departed},
	Lost:       {Joined, Departed},
	Departed:   {Joined},
	Rejected:   {Joined, Lost, Departed},
}

// phaseTransitions is the whole of what may become of a cluster.
var phaseTransitions = map[Phase][]Phase{
	Gathering: {Ready, Failed, Stopping},
	Ready:     {Stopping},
	Failed:    {Stopping},
	Stopping:  {Stopped},
	Stopped:   nil,
}

var stateEvents = map[State]EventType{
	Joined:     BuilderJoined,
	StateReady: BuilderReady,
	Cordoned:   BuilderCordoned,
	Draining:   BuilderDraining,
	Lost:       BuilderLost,
	Departed:   BuilderDeparted,
	Rejected:   BuilderRejected,
}

var phaseEvents = map[Phase]EventType{
	Ready:    ClusterReady,
	Failed:   ClusterFailed,
	Stopping: ClusterStopping,
	Stopped:  ClusterStopped,
}

// moveLocked makes every transition of a builder. It refuses those that the table
// does not have with an error that wraps [ErrNotJoined], and then changes nothing.
func (c *Cluster) moveLocked(s *slot, to State, reason string) error {
	from := s.State
	if !slices.Contains(transitions[from], to) {
		return fmt.Errorf("%w: it is %s", ErrNotJoined, from)
	}
	now := time.Now()
	told := c.toldAtLocked(s)
	switch to {
	case Joined:
		s.ReadyAt, s.LeftAt, s.LeftAfter = time.Time{}, time.Time{}, nil
		s.MaxJobs, s.SpeedFactor = 0, 0
	case StateReady:
		if s.ReadyAt.IsZero() { // it comes back from being cordoned
			s.ReadyAt = now
		}
	case Lost:
		s.LeftAt, s.Missed = now, !told.IsZero()
	case Departed:
		s.LeftAt, s.Missed = now, false
		if !told.IsZero() {
			after := max(0, now.Sub(told))
			s.LeftAfter = &after
		}
	}
	if from.Present() {
		c.present--
	}
	if to.Present() {
		c.present++
	}
	s.State, s.Reason, s.Since, s.note = to, reason, now, ""
	c.entered[to]++
	c.emitLocked(Event{
		Type: stateEvents[to], Builder: s.Name,
		From: from.String(), To: to.String(), Reason: reason,
	}, now)
	c.settleLocked()
	return nil
}

// moveClusterLocked makes every transition of the cluster. One that the table
// does not have is an error in this package.
func (c *Cluster) moveClusterLocked(to Phase, reason string) {
	from := c.phase
	if !slices.Contains(phaseTransitions[from], to) {
		panic(fmt.Sprintf("coordinator: no way from %s to %s", from, to))
	}
	now := time.Now()
	c.phase, c.reason, c.since = to, reason, now
	if to == Stopping {
		c.stoppedAt, c.stopReason = now, reason
	}
	c.emitLocked(Event{
		Type: phaseEvents[to],
		From: from.String(), To: to.String(), Reason: reason,
	}, now)
	c.settleLocked()
}

// settleLocked lets the cluster follow its builders: a quorum that is met makes it
// ready, a quorum that can't be met any more fails it, strained builders are cordoned
// while others can take their builds, and the last builder to go ends its stop.
func (c *Cluster) settleLocked() {
	switch c.phase {
	case Gathering:
		q := c.quorumLocked()
		switch {
		case q.needed == 0:
			c.moveClusterLocked(Failed, "every builder was released before one was needed")
		case q.met():
			c.moveClusterLocked(Ready, q.String())
		}
	case Ready:
		c.balanceLocked()
	case Stopping:
		if c.present == 0 {
			c.moveClusterLocked(Stopped, c.partingLocked())
		}
	}
}

// partingLocked says how the builders went.
func (c *Cluster) partingLocked() string {
	missed := 0
	for _, s := range c.slots {
		if s.Missed {
			missed++
		}
	}
	switch missed {
	case 0:
		return "all builders have left"
	case 1:
		return "one builder fell silent without leaving"
	}
	return fmt.Sprintf("%d builders fell silent without leaving", missed)
}

// toldAtLocked is when the builder was told to leave by a stop or by name, or zero.
func (c *Cluster) toldAtLocked(s *slot) time.Time {
	if !s.ReleasedAt.IsZero() {
		return s.ReleasedAt
	}
	return c.stoppedAt
}

// emitLocked numbers an event of now and puts it aside for the commit that will
// make it known.
func (c *Cluster) emitLocked(e Event, now time.Time) {
	c.event++
	e.Number, e.At, e.Cluster = c.event, now.UTC(), c.cfg.ID
	c.pending = append(c.pending, e)
	c.edits++
	c.bumpLocked()
}
