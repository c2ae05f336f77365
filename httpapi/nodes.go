package httpapi

import (
	"fmt"
	"sync"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

// nodes counts what each node has open, so that none can take what others need.
type nodes struct {
	requests int // of one node at a time
	streams  int // of one node at a time

	mu   sync.Mutex // guards what follows
	open map[string]*usage
}

// usage is what one node has open. It is forgotten when nothing is.
type usage struct{ requests, streams int }

func newNodes(requests, streams int) *nodes {
	return &nodes{requests: requests, streams: streams, open: make(map[string]*usage)}
}

// enter counts a request of c's until leave is called.
func (n *nodes) enter(c Caller) (leave func(), _ error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	u := n.open[c.ID]
	if u == nil {
		u = new(usage)
		n.open[c.ID] = u
	}
	if u.requests >= n.requests {
		return nil, &refusal{problem.TooManyRequests,
			fmt.Sprintf("a node may have %d requests open; end some", n.requests), ""}
	}
	u.requests++
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if u.requests--; u.requests == 0 {
			delete(n.open, c.ID)
		}
	}, nil
}

// stream counts one of c's open requests as an event stream until leave is called.
func (n *nodes) stream(c Caller) (leave func(), _ error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	u := n.open[c.ID] // there as long as the request is
	if u.streams >= n.streams {
		return nil, &refusal{problem.TooManyStreams,
			fmt.Sprintf("a node may have %d event streams open; close one", n.streams), ""}
	}
	u.streams++
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		u.streams--
	}, nil
}
