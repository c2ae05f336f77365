package coordinator

// ring keeps the last events that were published. Guarded by [Cluster.mu].
type ring struct {
	max    int
	events []Event // max or more once there were so many; oldest first, of consecutive numbers
	last   int64   // number of the last event that was published
}

func (r *ring) add(e Event) {
	if len(r.events) == 2*r.max { // now and then, so that it costs little an event
		r.events = append(r.events[:0], r.events[r.max:]...)
	}
	r.events = append(r.events, e)
	r.last = e.Number
}

// after returns the events that were published after the number, and false if some
// of them are forgotten.
func (r *ring) after(number int64) ([]Event, bool) {
	missed := r.last - number
	if missed > int64(len(r.events)) {
		return nil, false
	}
	return r.events[len(r.events)-int(max(0, missed)):], true
}

// Subscription is one reader's stream of events. Make it with [Cluster.Subscribe]
// or [Cluster.Follow], and close it.
type Subscription struct {
	cluster  *Cluster
	events   chan Event // sent on, and closed, only with Cluster.mu held
	snapshot *View      // never changes
	follows  bool       // goes on when the cluster stops; never changes

	// Guarded by Cluster.mu.
	after int64 // number of the last event that the reader has or will get
	ended bool  // events is closed
	err   error
}

// Subscribe returns the stream of the events after number after, none of them
// missing. It ends after the event that says the cluster is stopping; on a cluster
// that is stopping it gives what is kept and ends.
//
// If after is negative, of the future, or too long ago, the stream begins with a
// snapshot instead. A reader that falls more than buffer events behind is cut off
// with [ErrSlow].
func (c *Cluster) Subscribe(after int64, buffer int) *Subscription {
	return c.subscribe(after, buffer, false)
}

// Follow is Subscribe for a reader that must hear of departures too: the stream goes
// on while the cluster stops, until it is closed.
func (c *Cluster) Follow(after int64, buffer int) *Subscription {
	return c.subscribe(after, buffer, true)
}

func (c *Cluster) subscribe(after int64, buffer int, follows bool) *Subscription {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &Subscription{cluster: c, follows: follows, after: after}
	backlog, ok := c.ring.after(after)
	if !ok || after < 0 || after > c.event {
		view := c.viewLocked()
		s.snapshot, s.after, backlog = &view, view.Event, nil
	}
	s.events = make(chan Event, len(backlog)+max(1, buffer))
	for _, e := range backlog {
		s.events <- e
		s.after = e.Number
	}
	if isClosed(c.stopping) && !follows {
		s.endLocked(nil)
		return s
	}
	c.subs[s] = struct{}{}
	return s
}

// C gives the events in order. It is closed when the stream ends; [Subscription.Err]
// says why.
func (s *Subscription) C() <-chan Event { return s.events }

// Snapshot returns the cluster as it was when the stream began, if the stream does
// not go on from where its reader was. The events of the stream come after it.
func (s *Subscription) Snapshot() (View, bool) {
	if s.snapshot == nil {
		return View{}, false
	}
	return *s.snapshot, true
}

// Err returns [ErrSlow] if the reader was cut off, and nil before the end and when
// the stream ended as it should.
func (s *Subscription) Err() error {
	s.cluster.mu.Lock()
	defer s.cluster.mu.Unlock()
	return s.err
}

// Close ends the stream. It may be called again.
func (s *Subscription) Close() {
	s.cluster.mu.Lock()
	defer s.cluster.mu.Unlock()
	s.endLocked(nil)
}

// endLocked ends the stream; what is in its buffer can still be read.
func (s *Subscription) endLocked(err error) {
	if s.ended {
		return
	}
	s.ended, s.err = true, err
	close(s.events)
	delete(s.cluster.subs, s)
}

// sendLocked gives the reader an event, or cuts it off if its buffer is full.
func (s *Subscription) sendLocked(e Event) {
	if s.ended || e.Number <= s.after {
		return
	}
	select {
	case s.events <- e:
		s.after = e.Number
	default:
		s.endLocked(ErrSlow)
	}
}

// publishLocked makes events known to their readers.
func (c *Cluster) publishLocked(events []Event) {
	for _, e := range events {
		c.ring.add(e)
		for s := range c.subs {
			s.sendLocked(e)
			if e.Type == ClusterStopping && !s.follows {
				s.endLocked(nil)
			}
		}
	}
}
