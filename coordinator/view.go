package coordinator

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// View is a cluster as it was at one moment: a deep copy that its reader owns.
// Times are wall clock, UTC.
type View struct {
	ID       string
	Phase    Phase
	Reason   string
	Since    time.Time // when it entered the phase
	Revision int64     // grows with every change, also over restarts
	Event    int64     // number of the last event
	Quorum   int       // builders that must be ready before builds may start
	// SystemQuorum is how many of them must build for each of these systems; nil if it
	// does not matter.
	SystemQuorum map[string]int
	Lease        time.Duration
	Builders     []Builder // in the order of [Config.Builders]
}

// Builder is one builder in a [View]. Of a builder that left or was lost, what it
// last was stays.
type Builder struct {
	Name        string // as configured
	State       State
	Reason      string // why it is in this state, or what the last store check said
	Since       time.Time
	ID          uuid.UUID // [uuid.Nil] until it checked in
	Node        Node      // zero until it checked in
	Offer       *Offer    // nil until it checked in
	Vitals      *Vitals   // nil until told
	MaxJobs     int       // builds at a time that Nix may send it; 0 until it was ready
	SpeedFactor int       // how fast Nix takes it to be; 0 until it was ready

	JoinedAt time.Time // zero until it checked in
	ReadyAt  time.Time // zero until it was ready
	LeftAt   time.Time // zero unless it is departed or lost

	// Silent is how long it was not heard; 0 unless [State.Present] or [Lost].
	Silent time.Duration
	// Leaving says that it was told to leave: nothing may be dispatched to it,
	// whatever its state.
	Leaving bool
	// Drained says that it gets no new builds, whatever its state, and is told to leave
	// when those that it has have ended.
	Drained bool
}

// View returns the cluster as it is.
func (c *Cluster) View() View {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.viewLocked()
}

// Await returns the cluster as soon as its revision is newer than after, and as it
// is when wait is over, ctx ends, or the cluster begins to stop meanwhile. A query
// that arrives later waits for the next change, so that a stop can be followed.
func (c *Cluster) Await(ctx context.Context, after int64, wait time.Duration) View {
	timer := time.NewTimer(max(0, wait))
	defer timer.Stop()
	stopping := c.stopping
	if isClosed(stopping) {
		stopping = nil
	}
	for {
		c.mu.Lock()
		if c.revision > after || wait <= 0 {
			defer c.mu.Unlock()
			return c.viewLocked()
		}
		changed := c.changedLocked()
		c.mu.Unlock()
		select {
		case <-changed:
			continue
		case <-stopping:
		case <-timer.C:
		case <-ctx.Done():
		}
		return c.View()
	}
}

// Entered returns how often builders entered the state since this process began.
func (c *Cluster) Entered(s State) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.entered[s]
}

// changedLocked returns a channel that is closed at the next change.
func (c *Cluster) changedLocked() <-chan struct{} {
	if c.changed == nil {
		c.changed = make(chan struct{})
	}
	return c.changed
}

// wakeLocked lets those who wait for a change look.
func (c *Cluster) wakeLocked() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// bumpLocked counts a change. When the revisions in reserve are used up, more must
// be reserved with the next save.
func (c *Cluster) bumpLocked() {
	c.revision++
	if c.revision > c.reserved {
		c.reserved = c.revision + revisionsAhead
		c.edits++
	}
}

func (c *Cluster) viewLocked() View {
	q := c.quorumLocked()
	v := View{
		ID: c.cfg.ID, Phase: c.phase, Reason: c.reason, Since: utc(c.since),
		Revision: c.revision, Event: c.event, Quorum: q.needed, Lease: c.cfg.Lease,
		Builders: make([]Builder, 0, len(c.slots)),
	}
	for _, part := range q.systems {
		if v.SystemQuorum == nil {
			v.SystemQuorum = make(map[string]int)
		}
		v.SystemQuorum[part.system] = part.needed
	}
	now := time.Now()
	for _, s := range c.slots {
		v.Builders = append(v.Builders, c.builderLocked(s, now))
	}
	return v
}

func (c *Cluster) builderLocked(s *slot, now time.Time) Builder {
	b := Builder{
		Name: s.Name, State: s.State, Reason: s.Reason, Since: utc(s.Since),
		ID: s.ID, Node: s.Node, MaxJobs: s.MaxJobs, SpeedFactor: s.SpeedFactor,
		JoinedAt: utc(s.JoinedAt), ReadyAt: utc(s.ReadyAt), LeftAt: utc(s.LeftAt),
		Leaving: c.phase >= Failed || !s.ReleasedAt.IsZero() || s.State == Rejected,
		Drained: c.draining || s.DrainReason != "",
	}
	if s.note != "" {
		b.Reason = s.note
	}
	if !s.ReleasedAt.IsZero() && s.State != Lost && s.State != Departed {
		b.Reason = s.ReleaseReason
	}
	if s.Offer != nil {
		offer := s.Offer.clone()
		b.Offer = &offer
	}
	if s.Vitals != nil {
		vitals := s.Vitals.clone()
		b.Vitals = &vitals
	}
	if s.State.Present() || s.State == Lost {
		b.Silent = max(0, now.Sub(s.heard))
	}
	return b
}

// utc is a time as it is shown. Zero stays zero. Where the wall clock has been set since, it
// is what that clock would have shown, so that ages come out right.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	now := time.Now()
	shown := now.Add(-now.Sub(t)) // by the monotonic clock, as far as t has it
	if shown.Round(0).Sub(t.Round(0)).Abs() < time.Second {
		shown = t // clocks drift, and what is shown twice is to be the same
	}
	return shown.UTC()
}
