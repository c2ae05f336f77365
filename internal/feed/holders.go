package feed

import (
	"math/rand/v2"
	"sync"
	"time"
)

const (
	perPeer   = 16   // fetches from one peer at a time
	maxAbsent = 4096 // absences that are remembered

	// maxDoublings bounds how long a peer is left alone that fails each time.
	maxDoublings = 6
)

// holders is what a proxy has learnt of its peers by asking them.
type holders struct {
	rest time.Duration // for which one that failed is left alone

	mu     sync.Mutex            // guards all below
	shuns  map[string]shun       // by node
	absent map[absence]time.Time // until when they are believed
	active map[string]int        // fetches that are under way, by node
	freed  chan struct{}         // closed when one ends; nil if nobody waits
}

// A shun is why a peer is not asked for anything.
type shun struct {
	until time.Time
	times int // that it failed, since it gave something
}

// An absence is a path that a peer turned out not to have.
type absence struct{ node, hash string }

func newHolders(rest time.Duration) *holders {
	return &holders{rest: rest, shuns: map[string]shun{}, absent: map[absence]time.Time{}, active: map[string]int{}}
}

// willing returns those of the peers that may be asked for a path.
func (h *holders) willing(hash string, peers []Peer) []Peer {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.willingLocked(hash, peers)
}

func (h *holders) willingLocked(hash string, peers []Peer) (will []Peer) {
	now := time.Now()
	for _, p := range peers {
		if !now.Before(h.shuns[p.Node].until) && !now.Before(h.absent[absence{p.Node, hash}]) {
			will = append(will, p)
		}
	}
	return will
}

// take begins a fetch of a path from the peer that has the least to do. If all have enough
// to do, wait is closed when that may have changed. There is neither if nobody has it.
func (h *holders) take(hash string, peers []Peer) (peer *Peer, wait <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	will := h.willingLocked(hash, peers)
	if len(will) == 0 {
		return nil, nil
	}
	rand.Shuffle(len(will), func(i, j int) { will[i], will[j] = will[j], will[i] })
	best := will[0]
	for _, p := range will[1:] {
		if h.active[p.Node] < h.active[best.Node] {
			best = p
		}
	}
	if h.active[best.Node] >= perPeer {
		if h.freed == nil {
			h.freed = make(chan struct{})
		}
		return nil, h.freed
	}
	h.active[best.Node]++
	return &best, nil
}

// free ends what take began.
func (h *holders) free(node string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.active[node]--; h.active[node] == 0 {
		delete(h.active, node)
	}
	if h.freed != nil {
		close(h.freed)
		h.freed = nil
	}
}

// gave forgets how often a peer failed before.
func (h *holders) gave(node string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.shuns, node)
}

// failed leaves a peer alone for a while, and twice as long each time that it fails again.
// Fetches that fail at the same time count once.
func (h *holders) failed(node string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if s := h.shuns[node]; !now.Before(s.until) {
		h.shuns[node] = shun{now.Add(h.rest << min(s.times, maxDoublings)), s.times + 1}
	}
}

// lacks remembers for a while that a peer does not have a path.
func (h *holders) lacks(node, hash string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.absent) >= maxAbsent {
		clear(h.absent)
	}
	h.absent[absence{node, hash}] = time.Now().Add(h.rest)
}
