package coordinator

import (
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Journal keeps a cluster's [Record] over restarts of its process. It is used by
// one goroutine at a time.
type Journal interface {
	// Load returns what was saved last, and false if nothing ever was.
	Load() (Record, bool, error)
	// Save returns when the record would survive the machine's crash.
	Save(Record) error
}

// RecordVersion is the version of [Record] that this package reads and writes.
const RecordVersion = 1

// Record is what of a cluster outlives its process. It shares nothing that changes
// with the cluster. Times are for display: no decision compares them with the clock.
type Record struct {
	Version    int       `json:"version"`
	ID         string    `json:"id"`
	Phase      Phase     `json:"phase"`
	Reason     string    `json:"reason"`
	Since      time.Time `json:"since"`
	StoppedAt  time.Time `json:"stopped_at,omitzero"`
	StopReason string    `json:"stop_reason,omitempty"`
	Restored   bool      `json:"restored,omitempty"` // the host's files are as they were
	// Drain says that the whole cluster is drained, by whom; DrainFor is how long builds
	// get to end.
	Drain    string        `json:"drain,omitempty"`
	DrainFor time.Duration `json:"drain_for_ns,omitempty"`
	Revision int64         `json:"revision"` // none higher was shown
	Event    int64         `json:"event"`    // number of the last event
	Slots    []SlotRecord  `json:"slots"`
	Former   []Former      `json:"former,omitempty"` // holders that were replaced, oldest first
}

// SlotRecord is what of one builder's place outlives the process.
type SlotRecord struct {
	Name        string    `json:"name"`
	State       State     `json:"state"`
	Reason      string    `json:"reason"`
	Since       time.Time `json:"since"`
	ID          uuid.UUID `json:"id,omitzero"`
	Instance    uuid.UUID `json:"instance,omitzero"`
	Node        Node      `json:"node,omitzero"`
	Offer       *Offer    `json:"offer,omitempty"` // what it points to never changes
	MaxJobs     int       `json:"max_jobs,omitempty"`
	SpeedFactor int       `json:"speed_factor,omitempty"`
	// Vitals are saved along with changes that matter, and are none by themselves:
	// a builder that is there tells them anew soon. What it points to never changes.
	Vitals        *Vitals        `json:"vitals,omitempty"`
	JoinedAt      time.Time      `json:"joined_at,omitzero"`
	ReadyAt       time.Time      `json:"ready_at,omitzero"`
	LeftAt        time.Time      `json:"left_at,omitzero"`
	LeftAfter     *time.Duration `json:"left_after_ns,omitempty"` // what it points to never changes
	ReleasedAt    time.Time      `json:"released_at,omitzero"`
	ReleaseReason string         `json:"release_reason,omitempty"`
	Missed        bool           `json:"missed,omitempty"` // lost after it was told to leave
	// DrainReason says that the builder is drained, and by whom; DrainFor is how long its
	// builds get to end.
	DrainReason string        `json:"drain_reason,omitempty"`
	DrainFor    time.Duration `json:"drain_for_ns,omitempty"`
	Cut         *int          `json:"cut,omitempty"` // builds that ran when it was told to leave; what it points to never changes
}

// revisionsAhead is how many revisions are reserved with each save, so that not
// every change of vitals needs one.
const revisionsAhead = 4096

// commit saves what changed and then makes it known: events to the log and to
// their readers, changes to those who wait, teardowns to the polls. Calls that come
// while one saves share the next save. It waits for the disk only.
//
// An error is logged and kept for the report of a stop, and what it concerns made
// known all the same: a full disk must not hold builders. The next commit tries
// again.
func (c *Cluster) commit() error {
	c.mu.Lock()
	want := c.edits
	done := c.saved >= want
	c.mu.Unlock()
	if done {
		return nil
	}
	c.saving <- struct{}{}
	defer func() { <-c.saving }()

	c.mu.Lock()
	if c.saved >= want {
		c.mu.Unlock()
		return nil
	}
	edits, events, phase := c.edits, c.pending, c.phase
	c.pending = nil
	var record Record
	if c.cfg.Journal != nil {
		record = c.recordLocked()
	}
	c.mu.Unlock()

	var err error
	if c.cfg.Journal != nil {
		if err = c.cfg.Journal.Save(record); err != nil {
			err = fmt.Errorf("save the cluster's state: %w", err)
			c.cfg.Log.Error("the cluster's state is not saved; it goes on without", "error", err)
		}
	}
	for _, e := range events {
		c.logEvent(e)
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	c.faultSave = err
	if err == nil {
		c.saved = edits
	}
	c.publishLocked(events)
	if phase >= Failed && !isClosed(c.told) {
		close(c.told)
	}
	if phase >= Stopping && !isClosed(c.stopping) {
		close(c.stopping)
	}
	c.wakeLocked()
	return err
}

// recordLocked is the cluster as the journal keeps it, with revisions in reserve.
func (c *Cluster) recordLocked() Record {
	c.reserved = c.revision + revisionsAhead
	r := Record{
		Version: RecordVersion, ID: c.cfg.ID,
		Phase: c.phase, Reason: c.reason, Since: c.since,
		StoppedAt: c.stoppedAt, StopReason: c.stopReason, Restored: c.restored,
		Revision: c.reserved, Event: c.event,
		Slots: make([]SlotRecord, 0, len(c.slots)),
	}
	if c.draining {
		r.Drain, r.DrainFor = c.drainReason, c.drainFor
	}
	for _, s := range c.slots {
		r.Slots = append(r.Slots, s.SlotRecord)
	}
	for _, id := range c.formerOrder {
		r.Former = append(r.Former, c.former[id])
	}
	return r
}

// resume takes the cluster on from a record, before anyone else has it. Builders
// that were there get a new lease. Those that the configuration names no more are
// forgotten.
func (c *Cluster) resume(r Record, now time.Time) error {
	if r.Version != RecordVersion {
		return fmt.Errorf("its saved state has version %d, and this program knows %d: use the program that wrote it", r.Version, RecordVersion)
	}
	if r.ID != c.cfg.ID {
		return fmt.Errorf("the saved state is that of cluster %s, not of %s", r.ID, c.cfg.ID)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.phase, c.reason, c.since = r.Phase, r.Reason, r.Since
	c.stoppedAt, c.stopReason, c.restored = r.StoppedAt, r.StopReason, r.Restored
	c.revision, c.reserved, c.event = r.Revision, r.Revision, r.Event
	c.ring.last = r.Event
	c.draining, c.drainReason, c.drainFor = r.Drain != "", r.Drain, r.DrainFor
	for _, f := range r.Former[max(0, len(r.Former)-maxFormer):] {
		c.rememberLocked(f)
	}
	for _, saved := range r.Slots {
		s, ok := c.byLabel[c.cfg.Label(saved.Name)]
		if !ok {
			c.cfg.Log.Warn("a builder that checked in before is expected no more", "builder", saved.Name)
			continue
		}
		saved.Name = s.Name
		s.SlotRecord, s.heard = saved, now
		if s.State == Cordoned {
			s.strain = s.Reason // until it tells how it is now
		}
		if s.ID != uuid.Nil {
			c.byID[s.ID] = s
		}
		if s.State.Present() {
			c.present++
		}
	}
	if c.phase >= Failed {
		close(c.told)
	}
	if c.phase >= Stopping {
		close(c.stopping)
		c.unfinished = !c.restored
	}
	c.undrained = c.undrainedLocked()
	c.bumpLocked()
	c.settleLocked()
	return nil
}
