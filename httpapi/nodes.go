package httpapi

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

// nodes counts what each node has open and how often it calls, so that none can take what
// others need.
type nodes struct {
	limits Limits

	mu   sync.Mutex // guards what follows
	seen map[string]*usage
}

// usage is what one node takes. It is forgotten some time after it took the last.
type usage struct {
	requests, streams int // open
	calls, checkIns   *rate.Limiter
}

const (
	// callsAhead and checkInsAhead are how many seconds' worth a node may do at once after
	// it was quiet. A builder that lost its coordinator for a while repeats itself.
	callsAhead, checkInsAhead = 4, 16
	// fewNodes may be remembered without looking which of them can be forgotten.
	fewNodes = 1024
	// refusedFor is how long an answer takes that refuses a node for doing too much. What
	// is answered at once is asked again at once.
	refusedFor = time.Second
)

func newNodes(limits Limits) *nodes {
	return &nodes{limits: limits, seen: make(map[string]*usage)}
}

// enter counts a request of c's until leave is called.
func (n *nodes) enter(c Caller) (leave func(), _ error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	u := n.ofLocked(c)
	if u.requests >= n.limits.PerNode {
		return nil, tooMuch("a node may have %d requests open; end some", n.limits.PerNode)
	}
	if !u.calls.Allow() {
		return nil, tooMuch("a node may make calls at a rate of %d a second; slow down", n.limits.Calls)
	}
	u.requests++
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		u.requests--
	}, nil
}

// checkIn counts a check-in of c's, which costs more than other calls: it may be an event,
// and the cluster's state saved.
func (n *nodes) checkIn(c Caller) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.ofLocked(c).checkIns.Allow() {
		return tooMuch("a node may check in at a rate of %d a second; slow down", n.limits.CheckIns)
	}
	return nil
}

// stream counts one of c's open requests as an event stream until leave is called.
func (n *nodes) stream(c Caller) (leave func(), _ error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	u := n.ofLocked(c)
	if u.streams >= n.limits.Streams {
		return nil, &refusal{problem.TooManyStreams,
			fmt.Sprintf("a node may have %d event streams open; close one", n.limits.Streams), ""}
	}
	u.streams++
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		u.streams--
	}, nil
}

// ofLocked returns c's usage.
func (n *nodes) ofLocked(c Caller) *usage {
	if u := n.seen[c.ID]; u != nil {
		return u
	}
	if len(n.seen) >= fewNodes {
		for id, u := range n.seen {
			if u.idle() {
				delete(n.seen, id)
			}
		}
	}
	perSecond := func(n, ahead int) *rate.Limiter { return rate.NewLimiter(rate.Limit(n), n*ahead) }
	u := &usage{
		calls:    perSecond(n.limits.Calls, callsAhead),
		checkIns: perSecond(n.limits.CheckIns, checkInsAhead),
	}
	n.seen[c.ID] = u
	return u
}

// idle reports whether to forget the usage changes nothing.
func (u *usage) idle() bool {
	full := func(l *rate.Limiter) bool { return l.Tokens() >= float64(l.Burst()) }
	return u.requests == 0 && full(u.calls) && full(u.checkIns)
}

// An excess is the refusal of a node that does too much. Its caller is held before it is
// answered.
type excess struct{ *refusal }

func (e excess) Unwrap() error { return e.refusal }

func tooMuch(format string, most int) error {
	return excess{&refusal{problem.TooManyRequests, fmt.Sprintf(format, most), ""}}
}

// hold lets the caller wait who is to be told that it does too much. How many wait is
// bounded by the number of connections.
func hold(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Retry-After", strconv.Itoa(int(refusedFor/time.Second)))
	t := time.NewTimer(refusedFor)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.Context().Done():
	}
}
