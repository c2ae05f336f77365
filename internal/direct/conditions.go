package direct

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
)

const (
	conditionsPath = "/conditions"
	// ageParam says how long ago the time is from which on a condition is asked for: clocks
	// of hosts differ.
	ageParam = "age_milliseconds"

	// watchEvery is how often the host is looked at while there are sessions.
	watchEvery = time.Second
	// watchTime bounds one look.
	watchTime = 5 * time.Second

	// A disk counts as full with less than a hundredth of it left, or less than 64 MiB.
	fullShare = 100
	fullBytes = 64 << 20
)

// A witness remembers what befell the host.
type witness struct {
	space func(context.Context) (total, free uint64, err error) // nil: nobody looks
	kills func() (int64, error)                                 // nil: nobody looks

	mu      sync.Mutex // guards what follows
	looked  bool       // counted is of an earlier look
	counted int64      // kills at the last look
	killed  []killed   // newest last
	full    time.Time  // when the disk was last seen full; zero: never
	blind   string     // what could not be seen at the last look
}

// killed are processes that were ended for want of memory between two looks.
type killed struct {
	at time.Time // of the second
	n  int
}

// maxKilled bounds what is remembered.
const maxKilled = 1024

// look looks at the host now.
func (w *witness) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, watchTime)
	defer cancel()
	var counted int64
	var total, free uint64
	var countErr, spaceErr error
	if w.kills != nil {
		counted, countErr = w.kills()
	}
	if w.space != nil {
		total, free, spaceErr = w.space(ctx)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.blind = ""
	if countErr == nil {
		if n := counted - w.counted; w.looked && n > 0 {
			w.killed = append(w.killed, killed{now, int(n)})
			w.killed = w.killed[max(0, len(w.killed)-maxKilled):]
		}
		w.looked, w.counted = true, max(w.counted, counted) // another look may have been quicker
	} else {
		w.blind = countErr.Error()
	}
	switch {
	case spaceErr != nil:
		w.blind = spaceErr.Error()
	case w.space != nil && (free < fullBytes || free < total/fullShare):
		w.full = now
	}
}

// since gives what befell the host since then.
func (w *witness) since(t time.Time) scheduler.Condition {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := scheduler.Condition{DiskFull: !w.full.IsZero() && !w.full.Before(t), Unknown: w.blind}
	for _, k := range w.killed {
		if !k.at.Before(t) {
			c.OOMKills += k.n
		}
	}
	return c
}

// watch looks at the host each second while there are sessions, until ctx ends.
func (s *Server) watch(ctx context.Context) {
	s.witness.look(ctx)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if s.Sessions() > 0 {
				s.witness.look(ctx)
			}
		}
	}
}

// conditions answers what befell the host since a time.
func (s *Server) conditions(w http.ResponseWriter, r *http.Request) {
	age, err := strconv.ParseInt(r.URL.Query().Get(ageParam), 10, 64)
	if err != nil || age < 0 || age > (30*24*time.Hour).Milliseconds() {
		http.Error(w, ageParam+" is no number of milliseconds of a month at most", http.StatusBadRequest)
		return
	}
	since := time.Now().Add(-time.Duration(age) * time.Millisecond)
	s.witness.look(r.Context())
	c := s.witness.since(since)
	s.mu.Lock()
	c.Leaving = s.fenced != "" || !s.fencedAt.IsZero() && !s.fencedAt.Before(since)
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(c) // who asked has gone
}
