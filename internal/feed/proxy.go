package feed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
)

// ProxyConfig is what a Proxy is made from.
type ProxyConfig struct {
	Follower *Follower
	// Transport carries requests to other builders.
	Transport http.RoundTripper
	// First is how long a builder may take for its first byte. If zero, 2 s.
	First time.Duration
	// Stall is how long it may take for any other. If zero, 5 s.
	Stall time.Duration
	// Shun is how long a builder that failed is not asked; twice as long each time that it
	// fails again, up to 64 times. If zero, 30 s.
	Shun time.Duration
	Log  *slog.Logger // if nil, nothing is logged
}

// Bounds of a proxy, for what Nix waits for.
const (
	seekTime = 10 * time.Second // for a builder that gives a path, or has a turn for it
	passTime = time.Minute      // for Nix to take a part of it
)

// A Proxy is a binary cache for this host's Nix, of what the other builders have. It answers
// from what it knows; it asks others only for what Nix has decided to fetch. Make it with
// [NewProxy].
type Proxy struct {
	cfg      ProxyConfig
	log      *slog.Logger
	listener net.Listener
	router   chi.Router
	holders  *holders
	sessions atomic.Int64
	taken    tally
	missed   atomic.Int64
}

// NewProxy makes a proxy that listens on the loopback.
func NewProxy(cfg ProxyConfig) (*Proxy, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for this host's Nix: %w", err)
	}
	cfg.First = cmp.Or(cfg.First, 2*time.Second)
	cfg.Stall = cmp.Or(cfg.Stall, 5*time.Second)
	p := &Proxy{
		cfg: cfg, log: cmp.Or(cfg.Log, slog.New(slog.DiscardHandler)), listener: ln,
		router: chi.NewRouter(), holders: newHolders(cmp.Or(cfg.Shun, 30*time.Second)),
	}
	p.router.Get("/{session}/nix-cache-info", p.cacheInfo)
	p.router.Get("/{session}/{file}", p.narinfo)
	p.router.Head("/{session}/{file}", p.narinfo)
	p.router.Get("/{session}"+narPrefix+"{file}", p.nar)
	return p, nil
}

// Conf gives the lines of nix.conf that make one process of Nix ask the proxy, and believe
// what the key has signed. Each call names another cache: Nix remembers for an hour, on disk,
// that a cache lacked a path, and here that changes by the second.
func (p *Proxy) Conf(key string) string {
	return fmt.Sprintf("extra-substituters = http://%s/%d\nextra-trusted-public-keys = %s\n", p.listener.Addr(), p.sessions.Add(1), key)
}

// ProxyStats counts what Nix asked a proxy for.
type ProxyStats struct {
	Taken  Count // from other builders, in whole
	Missed int64 // paths that others were to have, and did not give
}

// Stats counts what Nix has asked for so far.
func (p *Proxy) Stats() ProxyStats {
	return ProxyStats{Taken: p.taken.count(), Missed: p.missed.Load()}
}

// Close ends a proxy that is not served.
func (p *Proxy) Close() error { return p.listener.Close() }

// Serve answers until ctx ends.
func (p *Proxy) Serve(ctx context.Context) error {
	server := &http.Server{
		Handler: p, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(p.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve this host's Nix: %w", err)
	}
	return nil
}

// ServeHTTP answers one request of Nix.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.router.ServeHTTP(w, r) }

func (p *Proxy) cacheInfo(w http.ResponseWriter, _ *http.Request) {
	// Before the caches of the Internet, which are further away.
	fmt.Fprintf(w, "StoreDir: %s\nWantMassQuery: 1\nPriority: 10\n", defaultDir)
}

// narinfo tells what is known of a path that another builder could give.
func (p *Proxy) narinfo(w http.ResponseWriter, r *http.Request) {
	hash, ok := strings.CutSuffix(chi.URLParam(r, "file"), ".narinfo")
	path, peers, known := p.cfg.Follower.Lookup(hash)
	if !ok || !known || len(p.holders.willing(hash, peers)) == 0 {
		http.NotFound(w, r)
		return
	}
	info, err := path.narinfo(hash)
	if err != nil {
		p.log.Warn("the coordinator tells of a path what can't be", "path", path.Path, "error", err)
		http.NotFound(w, r)
		return
	}
	text := info.String()
	w.Header().Set("Content-Type", info.ContentType())
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	fmt.Fprint(w, text)
}

// nar gives Nix a path that another builder has. Once Nix has got a part of it no other
// builder can go on: the connection is cut, and Nix asks again or does without.
func (p *Proxy) nar(w http.ResponseWriter, r *http.Request) {
	hash, ok := strings.CutSuffix(chi.URLParam(r, "file"), narSuffix)
	path, peers, known := p.cfg.Follower.Lookup(hash)
	if !ok || !known {
		http.NotFound(w, r)
		return
	}
	f := p.begin(r.Context(), hash, path, peers)
	if f == nil {
		p.missed.Add(1)
		http.NotFound(w, r)
		return
	}
	defer p.holders.free(f.peer.Node)
	defer f.close()
	w.Header().Set("Content-Type", narType)
	w.Header().Set("Content-Length", strconv.FormatInt(path.NarSize, 10))
	if err := f.passTo(newTaken(w, passTime)); err != nil {
		p.missed.Add(1)
		p.blame(r.Context(), f.peer, hash, path, err)
		panic(http.ErrAbortHandler) // Nix must not take it for whole
	}
	p.holders.gave(f.peer.Node)
	p.taken.add(path.NarSize)
}

// begin fetches a path from the first peer that gives some of it; nil if none does in time.
// Who calls it frees the peer.
func (p *Proxy) begin(ctx context.Context, hash string, path Path, peers []Peer) *fetch {
	seeking, end := context.WithTimeout(ctx, seekTime)
	defer end()
	for seeking.Err() == nil {
		peer, wait := p.holders.take(hash, peers)
		if peer == nil && wait == nil {
			return nil
		}
		if peer == nil {
			select {
			case <-wait:
			case <-seeking.Done():
			}
			continue
		}
		f, err := p.fetch(ctx, *peer, hash, path.NarSize)
		if err == nil {
			return f
		}
		p.holders.free(peer.Node)
		p.blame(ctx, *peer, hash, path, err)
		// It is not asked a second time, even if it is shunned no longer.
		peers = slices.DeleteFunc(peers, func(other Peer) bool { return other.Node == peer.Node })
	}
	return nil
}

// blame remembers that a peer did not give a path, if it was the peer.
func (p *Proxy) blame(ctx context.Context, peer Peer, hash string, path Path, err error) {
	p.log.Debug("a builder did not give a path", "peer", peer.Name, "path", path.Path, "error", err)
	_, nix := errors.AsType[*takerError](err)
	switch {
	case nix || ctx.Err() != nil: // Nix has gone, or does not take it
	case errors.Is(err, errLacks):
		p.holders.lacks(peer.Node, hash)
	default:
		p.holders.failed(peer.Node)
	}
}
