package coordinator

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

// Cluster is one cluster, from its making to its end. Its methods may be called by
// many goroutines at once. Make it with [New].
type Cluster struct {
	cfg     Config // with the defaults filled in
	slots   []*slot
	byLabel map[string]*slot
	// unfinished says that a stop of an earlier process left work. Set by New.
	unfinished bool
	// undrained are drains that an earlier process did not finish. Set by New.
	undrained []StopRequest

	// told is closed once it is saved that everyone must leave: the cluster failed
	// or is stopping. Every poll waits for it.
	told chan struct{}
	// stopping is closed once it is saved that the cluster is stopping.
	stopping chan struct{}
	// dismantling holds one token: the stop that has it works on [Config.Dispatch].
	dismantling chan struct{}
	// ending is closed when Run's context has ended.
	ending chan struct{}
	// sooner holds a token if a lease ends earlier than Run knows.
	sooner chan struct{}
	// saving holds one token: who has it uses [Config.Journal] and publishes.
	saving chan struct{}

	mu         sync.Mutex // guards all below, and what the slots hold; never held across a wait
	phase      Phase
	reason     string
	since      time.Time
	stoppedAt  time.Time           // zero before Stopping
	stopReason string              // what reason was in Stopping
	restored   bool                // Dispatch.Restore succeeded after the stop
	present    int                 // slots whose state is Present
	entered    [Rejected + 1]int64 // how often builders entered each state in this process
	// draining says that the whole cluster is drained: nobody becomes ready. Then why,
	// and how long builds get to end.
	draining    bool
	drainReason string
	drainFor    time.Duration

	byID        map[uuid.UUID]*slot // holders
	former      map[uuid.UUID]Former
	formerOrder []uuid.UUID // keys of former, oldest first

	revision int64
	reserved int64 // revisions up to here may be shown before the next save
	event    int64 // number of the last event, published or pending
	edits    int64 // counts what the journal must keep
	saved    int64 // edits that the journal has
	pending  []Event
	ring     ring
	subs     map[*Subscription]struct{}
	changed  chan struct{} // closed at the next change that is published; nil if nobody waits

	faultClose, faultSave, faultRestore error // latest outcome of each
}

// New makes a cluster, or goes on with the one that the journal has.
func New(cfg Config) (*Cluster, error) {
	labels, err := cfg.fill()
	if err != nil {
		return nil, fmt.Errorf("new cluster: %w", err)
	}
	now := time.Now()
	c := &Cluster{
		cfg:         cfg,
		byLabel:     make(map[string]*slot, len(labels)),
		told:        make(chan struct{}),
		stopping:    make(chan struct{}),
		dismantling: make(chan struct{}, 1),
		saving:      make(chan struct{}, 1),
		sooner:      make(chan struct{}, 1),
		ending:      make(chan struct{}),
		reason:      "waiting for the builders",
		since:       now,
		revision:    1,
		byID:        make(map[uuid.UUID]*slot),
		former:      make(map[uuid.UUID]Former),
		ring:        ring{max: cfg.Events},
		subs:        make(map[*Subscription]struct{}),
	}
	for i, name := range cfg.Builders {
		s := &slot{label: labels[i], SlotRecord: SlotRecord{Name: name, Reason: "never checked in", Since: now}}
		c.slots = append(c.slots, s)
		c.byLabel[s.label] = s
	}
	if cfg.Journal == nil {
		return c, nil
	}
	record, ok, err := cfg.Journal.Load()
	if err != nil {
		return nil, fmt.Errorf("new cluster: load its state: %w", err)
	}
	if ok {
		if err := c.resume(record, now); err != nil {
			return nil, fmt.Errorf("new cluster: %w", err)
		}
	}
	return c, nil
}

// Run watches over leases and over the time that the quorum has, and finishes a
// stop or a drain that an earlier process began. It returns when ctx ends, with an
// error only if the cluster's state could not be saved at the end. Call it once.
func (c *Cluster) Run(ctx context.Context) error {
	deadline := time.Now().Add(c.cfg.GatherTimeout)
	if c.unfinished {
		c.dismantle(ctx, "")
	}
	var draining sync.WaitGroup
	defer draining.Wait()
	for _, req := range c.undrained {
		draining.Go(func() { _, _ = c.Stop(ctx, req) }) // its outcome is in the log
	}
	next := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			close(c.ending)
			return c.commit()
		case <-c.sooner:
		case <-timer.C:
		}
		now := time.Now()
		if late := now.Sub(next); late > c.cfg.grace()/3 {
			c.forgive(late)
		}
		next = c.expire(deadline)
		// Looking often is how a stop of this process is seen that ends before a lease does.
		if soon := now.Add(c.cfg.grace() / 3); soon.Before(next) {
			next = soon
		}
		timer.Reset(time.Until(next))
	}
}

// forgive gives everyone who is there a grace: this process was stopped, or its machine
// was, and what was sent to it meanwhile waits to be read.
func (c *Cluster) forgive(late time.Duration) {
	c.cfg.Log.Warn("this process did not run for a while; nobody is taken for lost because of that", "for", late.Round(time.Millisecond))
	c.mu.Lock()
	defer c.mu.Unlock()
	least := time.Now().Add(c.cfg.grace() - c.cfg.Lease)
	for _, s := range c.slots {
		if !s.State.Present() {
			continue
		}
		if s.heard.Before(least) {
			s.heard = least
		}
		s.broke = time.Time{}
	}
}

// expire takes for lost whose lease is over, fails the cluster when its quorum is
// overdue, and returns when to look again.
func (c *Cluster) expire(deadline time.Time) (next time.Time) {
	c.mu.Lock()
	now := time.Now()
	next = now.Add(c.cfg.Lease)
	for _, s := range c.slots {
		if !s.State.Present() {
			continue
		}
		end := c.leaseEndLocked(s)
		if end.After(now) {
			if end.Before(next) {
				next = end
			}
			continue
		}
		c.mustMoveLocked(s, Lost, s.obituary(now))
		s.endPollLocked()
	}
	if c.phase == Gathering {
		if !deadline.After(now) {
			c.moveClusterLocked(Failed, c.overdueLocked())
		} else if deadline.Before(next) {
			next = deadline
		}
	}
	c.mu.Unlock()
	c.commit() // logs and keeps its error; tried again when we look next
	return next
}

// overdueLocked says what was missing when the time for the quorum was over.
func (c *Cluster) overdueLocked() string {
	return fmt.Sprintf("after %v %s", c.cfg.GatherTimeout, strings.Replace(c.quorumLocked().String(), "are ready", "were ready", 1))
}

// logEvent writes the event's log line.
func (c *Cluster) logEvent(e Event) {
	level := slog.LevelInfo
	switch e.Type {
	case ClusterFailed, BuilderLost, BuilderRejected, BuilderCordoned:
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{slog.Int64("event", e.Number)}
	if e.Builder != "" {
		attrs = append(attrs, slog.String("builder", e.Builder))
	}
	attrs = append(attrs, slog.String("from", e.From), slog.String("to", e.To), slog.String("reason", e.Reason))
	c.cfg.Log.LogAttrs(context.Background(), level, string(e.Type), attrs...)
}
