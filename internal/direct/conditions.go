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
	// ageParam says how long ago the time is from which on events are asked for: clocks of
	// hosts differ.
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

// A report is what befell a host, by when it did. A question is some time on its way, the
// longer the worse the host is off: so who asks tells by their ages which events he means.
type report struct {
	Events  []event `json:"events,omitempty"`
	Unknown string  `json:"unknown,omitempty"` // what nobody could see
}

// An event is one thing that befell a host.
type event struct {
	Age      int64 `json:"age_milliseconds"` // when it was reported
	OOMKills int   `json:"oom_kills,omitempty"`
	DiskFull bool  `json:"disk_full,omitempty"`
	Leaving  bool  `json:"leaving,omitempty"`
}

// since is the condition that comes of the events that are not older.
func (r report) since(age time.Duration) scheduler.Condition {
	c := scheduler.Condition{Unknown: r.Unknown}
	for _, e := range r.Events {
		if e.Age <= age.Milliseconds() {
			c.OOMKills += e.OOMKills
			c.DiskFull = c.DiskFull || e.DiskFull
			c.Leaving = c.Leaving || e.Leaving
		}
	}
	return c
}

// report gives what befell the host within an age.
func (w *witness) report(age time.Duration) report {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := report{Unknown: w.blind}
	for _, k := range w.killed {
		if e := time.Since(k.at); e <= age {
			r.Events = append(r.Events, event{Age: e.Milliseconds(), OOMKills: k.n})
		}
	}
	if e := time.Since(w.full); !w.full.IsZero() && e <= age {
		r.Events = append(r.Events, event{Age: e.Milliseconds(), DiskFull: true})
	}
	return r
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

// conditions answers what befell the host within an age.
func (s *Server) conditions(w http.ResponseWriter, r *http.Request) {
	ms, err := strconv.ParseInt(r.URL.Query().Get(ageParam), 10, 64)
	if err != nil || ms < 0 || ms > (30*24*time.Hour).Milliseconds() {
		http.Error(w, ageParam+" is no number of milliseconds of a month at most", http.StatusBadRequest)
		return
	}
	age := time.Duration(ms) * time.Millisecond
	s.witness.look(r.Context())
	answer := s.witness.report(age)
	s.mu.Lock()
	e := time.Since(s.fencedAt)
	switch {
	case s.fenced != "":
		answer.Events = append(answer.Events, event{Leaving: true})
	case !s.fencedAt.IsZero() && e <= age:
		answer.Events = append(answer.Events, event{Age: e.Milliseconds(), Leaving: true})
	}
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // who asked has gone
}
