package coordinator

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Teardown tells a builder to leave. It is state: a poll that comes late gets
// it at once.
type Teardown struct {
	Phase  Phase
	Reason string // one line for the builder's log
	At     time.Time
}

// AwaitTeardown waits until the builder with the id must leave, wait is over, or
// ctx ends, and returns the teardown. It returns at once if the teardown holds
// already. A wait longer than [Ticket.Poll] is shortened to it.
//
// Its arrival renews the builder's lease; that it waits does not. There is one poll
// an id: a newer one ends the older. A poll that ends because ctx did, before another
// came, shortens the lease to a third from then on: the builder calls again, or is gone.
//
// Errors: [ErrNotYet] when wait is over or a newer poll came, [ErrUnknownBuilder],
// [ErrReplaced] (also in the middle of the wait), [ErrNotYours], and the cause of
// ctx's end.
func (c *Cluster) AwaitTeardown(ctx context.Context, node Node, id uuid.UUID, wait time.Duration) (Teardown, error) {
	c.mu.Lock()
	s, err := c.findLocked(node, id)
	if err != nil {
		c.mu.Unlock()
		return Teardown{}, fmt.Errorf("await teardown of builder %s: %w", id, err)
	}
	c.heardLocked(s)
	teardown, holds := c.teardownLocked(s)
	s.endPollLocked()
	var ended chan struct{}
	if !holds && wait > 0 {
		ended = make(chan struct{})
		s.poll = ended
	}
	c.mu.Unlock()
	c.commit() // it may be joined again
	if holds {
		return teardown, nil
	}
	if wait > 0 {
		timer := time.NewTimer(min(wait, c.cfg.poll()))
		defer timer.Stop()
		select {
		case <-c.told:
		case <-ended:
		case <-timer.C:
		case <-ctx.Done():
		}
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	if s.poll == ended && ended != nil {
		s.poll = nil
		if ctx.Err() != nil && s.ID == id {
			c.brokeLocked(s)
		}
	}
	if s.ID != id {
		return Teardown{}, fmt.Errorf("await teardown of %s: %w", s.Name, ErrReplaced)
	}
	if teardown, holds := c.teardownLocked(s); holds {
		return teardown, nil
	}
	if ctx.Err() != nil {
		return Teardown{}, fmt.Errorf("await teardown of %s: %w", s.Name, context.Cause(ctx))
	}
	return Teardown{}, fmt.Errorf("await teardown of %s: %w", s.Name, ErrNotYet)
}

// teardownLocked returns the teardown that holds for the slot's holder, if one does.
// That of the whole cluster holds from when it is saved.
func (c *Cluster) teardownLocked(s *slot) (Teardown, bool) {
	t := Teardown{Phase: c.phase}
	switch {
	case isClosed(c.told):
		t.Reason, t.At = c.reason, c.since
		if c.phase == Stopped {
			t.Reason, t.At = c.stopReason, c.stoppedAt
		}
	case !s.ReleasedAt.IsZero():
		t.Reason, t.At = s.ReleaseReason, s.ReleasedAt
	case s.State == Rejected:
		t.Reason, t.At = "rejected: "+s.Reason, s.Since
	case s.State == Departed:
		t.Reason, t.At = s.Reason, s.Since
	default:
		return Teardown{}, false
	}
	t.At = t.At.UTC()
	return t, true
}

// isClosed reports whether a channel that nothing is sent on is closed.
func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
