package coordinator

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// StoreAnswered is the reason of a builder that has become ready, or its beginning.
const StoreAnswered = "its store answered"

// Reached notes by what way the joined builder's store answers, if that is worth a word:
// when the builder becomes ready, it stands in its reason behind [StoreAnswered]. It does
// nothing if the builder is not joined any more.
func (c *Cluster) Reached(id uuid.UUID, way string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, err := c.holderLocked(id); err == nil && s.State == Joined {
		s.way = oneLine(way)
	}
}

// Verified notes that the joined builder's store answered and that Nix may send it
// up to maxJobs builds at a time and takes it to be speedFactor times as fast as the
// slowest. For a ready or cordoned builder it sets both anew.
//
// Errors: [ErrUnknownBuilder], [ErrReplaced], [ErrNotJoined] (lost, departed,
// rejected, drained or released meanwhile), [ErrFailed], [ErrStopping].
func (c *Cluster) Verified(id uuid.UUID, maxJobs, speedFactor int) error {
	c.mu.Lock()
	err := c.verifiedLocked(id, maxJobs, speedFactor)
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("take builder %s for ready: %w", id, err)
	}
	c.commit() // as in CheckIn
	return nil
}

func (c *Cluster) verifiedLocked(id uuid.UUID, maxJobs, speedFactor int) error {
	if maxJobs < 1 || speedFactor < 1 {
		return fmt.Errorf("it may have %d jobs and speed factor %d: give 1 or more", maxJobs, speedFactor)
	}
	s, err := c.holderLocked(id)
	switch {
	case err != nil:
		return err
	case c.phase >= Stopping:
		return ErrStopping
	case c.phase == Failed:
		return ErrFailed
	case !s.ReleasedAt.IsZero():
		return fmt.Errorf("%w: it is released", ErrNotJoined)
	case c.draining || s.DrainReason != "":
		return fmt.Errorf("%w: it is drained", ErrNotJoined)
	}
	if s.State == StateReady || s.State == Cordoned {
		if s.MaxJobs != maxJobs || s.SpeedFactor != speedFactor {
			s.MaxJobs, s.SpeedFactor = maxJobs, speedFactor
			c.edits++
			c.bumpLocked()
			c.wakeLocked()
		}
		return nil
	}
	if !slices.Contains(transitions[s.State], StateReady) {
		return fmt.Errorf("%w: it is %s", ErrNotJoined, s.State)
	}
	s.MaxJobs, s.SpeedFactor = maxJobs, speedFactor
	return c.moveLocked(s, StateReady, strings.TrimSpace(StoreAnswered+" "+s.way))
}

// Note shows why the joined builder is not ready yet, as its reason in views. It
// does nothing if the builder is not joined any more.
func (c *Cluster) Note(id uuid.UUID, reason string) {
	c.mu.Lock()
	s, err := c.holderLocked(id)
	if reason = oneLine(reason); err == nil && s.State == Joined && s.note != reason {
		s.note = reason
		c.bumpLocked()
		c.wakeLocked()
	}
	c.mu.Unlock()
	c.commit() // the revisions in reserve may be used up
}

// Reject notes that the builder can't be used, and tells it to leave. Its place
// stays taken until it departs, is lost, or a new instance checks in.
//
// Errors: [ErrUnknownBuilder], [ErrReplaced], [ErrNotJoined].
func (c *Cluster) Reject(id uuid.UUID, reason string) error {
	c.mu.Lock()
	s, err := c.holderLocked(id)
	if err == nil {
		err = c.moveLocked(s, Rejected, oneLine(reason))
	}
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("reject builder %s: %w", id, err)
	}
	c.commit() // as in CheckIn
	c.mu.Lock()
	defer c.mu.Unlock()
	s.endPollLocked()
	return nil
}
