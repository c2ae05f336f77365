package feed

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// FollowerConfig is what a Follower is made from.
type FollowerConfig struct {
	// Fetch asks the coordinator for what has changed since a cursor, as [Index.Page] does.
	Fetch func(ctx context.Context, after int64, wait time.Duration) (Page, error)
	// Self is this builder's own node, which is no peer of itself.
	Self string
	Log  *slog.Logger // if nil, nothing is logged
}

// Bounds of a follower.
const (
	maxKnown   = 100_000 // paths
	followWait = 15 * time.Second
	followTime = followWait + 15*time.Second // of one question
	followRest = 50 * time.Millisecond       // after an answer, for more to come together
	followIdle = time.Second                 // after one that came at once and had nothing
)

// A Follower knows what the coordinator's index tells. [Follower.Run] keeps it.
type Follower struct {
	cfg FollowerConfig
	log *slog.Logger

	mu    sync.RWMutex    // guards all below
	paths map[string]Path // by hash part
	peers map[string]Peer // by name, without this builder
	nodes map[string]bool // of all in peers
	news  chan struct{}   // closed at the next page
	full  bool            // some paths are not known for want of room
}

// NewFollower returns a follower that knows nothing yet.
func NewFollower(cfg FollowerConfig) *Follower {
	f := &Follower{cfg: cfg, log: cmp.Or(cfg.Log, slog.New(slog.DiscardHandler)), news: make(chan struct{})}
	f.forgetLocked()
	return f
}

func (f *Follower) forgetLocked() {
	f.paths, f.full = make(map[string]Path), false
	f.peers, f.nodes = make(map[string]Peer), make(map[string]bool)
}

// Run follows the index until ctx ends. It forgets everything then.
func (f *Follower) Run(ctx context.Context) {
	defer f.forget()
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = 200*time.Millisecond, 5*time.Second
	for after := int64(0); ctx.Err() == nil; {
		asked := time.Now()
		page, err := f.fetch(ctx, after)
		rest := followRest
		switch {
		case err != nil:
			if ctx.Err() == nil {
				f.log.Debug("ask the coordinator who has which paths", "error", err)
			}
			rest = pauses.NextBackOff()
		case page.Cursor < after:
			// Another server's index: what it has is all that there is.
			f.forget()
			after = 0
		default:
			pauses.Reset()
			f.learn(page)
			after = page.Cursor
			if len(page.Paths) >= pagePaths {
				rest = 0
			} else if len(page.Paths) == 0 && time.Since(asked) < followIdle {
				rest = followIdle
			}
		}
		select {
		case <-time.After(rest):
		case <-ctx.Done():
		}
	}
}

func (f *Follower) fetch(ctx context.Context, after int64) (Page, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, followTime, fmt.Errorf("no answer within %v", followTime))
	defer cancel()
	return f.cfg.Fetch(ctx, after, followWait)
}

func (f *Follower) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgetLocked()
}

// learn takes a page over.
func (f *Follower) learn(page Page) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.peers, f.nodes = make(map[string]Peer), make(map[string]bool)
	for _, p := range page.Peers {
		if p.Node != "" && p.Node != f.cfg.Self {
			f.peers[p.Name], f.nodes[p.Node] = p, true
		}
	}
	for _, p := range page.Paths {
		hash, ok := hashPart(p.Path)
		if !ok {
			continue
		}
		if _, known := f.paths[hash]; !known && len(f.paths) >= maxKnown {
			if !f.full {
				f.log.Warn("there are more paths in the cluster than builders keep in mind to share", "paths", maxKnown)
			}
			f.full = true
			continue
		}
		f.paths[hash] = p
	}
	close(f.news)
	f.news = make(chan struct{})
}

// Known returns the path with this hash part.
func (f *Follower) Known(hash string) (Path, bool) {
	p, _, ok := f.known(hash)
	return p, ok
}

func (f *Follower) known(hash string) (p Path, news <-chan struct{}, ok bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	p, ok = f.paths[hash]
	return p, f.news, ok
}

// Await returns the path with this hash part once it is known, until ctx ends: who asks for
// it may have heard of it a moment earlier.
func (f *Follower) Await(ctx context.Context, hash string) (Path, bool) {
	for {
		p, news, ok := f.known(hash)
		if ok {
			return p, true
		}
		select {
		case <-news:
		case <-ctx.Done():
			return Path{}, false
		}
	}
}

// Lookup returns the path with this hash part, and the peers that have it.
func (f *Follower) Lookup(hash string) (Path, []Peer, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	p, ok := f.paths[hash]
	var peers []Peer
	for _, name := range p.Holders {
		if peer, there := f.peers[name]; there {
			peers = append(peers, peer)
		}
	}
	return p, peers, ok
}

// IsPeer tells whether the node is a builder of the cluster that shares paths.
func (f *Follower) IsPeer(node string) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.nodes[node]
}

// hashLength is that of the digest in a store path's name.
const hashLength = 32

// hashPart returns the digest in a store path's name.
func hashPart(storePath string) (string, bool) {
	hash, name, ok := strings.Cut(path.Base(storePath), "-")
	return hash, ok && name != "" && isHash(hash)
}

// isHash tells whether s can be the digest in a store path's name.
func isHash(s string) bool {
	return len(s) == hashLength && !slices.ContainsFunc([]byte(s), func(c byte) bool {
		return !('0' <= c && c <= '9' || 'a' <= c && c <= 'z')
	})
}
