package feed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/nix-community/go-nix/pkg/narinfo"
	"github.com/nix-community/go-nix/pkg/narinfo/signature"
	"github.com/nix-community/go-nix/pkg/nixhash"
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

// A Proxy is a binary cache for this host's Nix, of what the other builders have. It answers
// from what it knows; it asks others only for what Nix has decided to fetch. Make it with
// [NewProxy].
type Proxy struct {
	cfg      ProxyConfig
	log      *slog.Logger
	listener net.Listener
	sessions atomic.Int64
	fetched  atomic.Int64 // bytes

	mu     sync.Mutex      // guards what follows
	shuns  map[string]shun // peers that failed, by name
	active map[string]int  // fetches from a peer, by its name
}

// A shun is why a peer is not asked.
type shun struct {
	until time.Time
	times int // that it failed, since it gave something
}

const perPeer = 16 // fetches from one builder at a time

// NewProxy makes a proxy that listens on the loopback.
func NewProxy(cfg ProxyConfig) (*Proxy, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for this host's Nix: %w", err)
	}
	cfg.First = cmp.Or(cfg.First, 2*time.Second)
	cfg.Stall = cmp.Or(cfg.Stall, 5*time.Second)
	cfg.Shun = cmp.Or(cfg.Shun, 30*time.Second)
	return &Proxy{
		cfg: cfg, log: cmp.Or(cfg.Log, slog.New(slog.DiscardHandler)), listener: ln,
		shuns: map[string]shun{}, active: map[string]int{},
	}, nil
}

// Conf gives the lines of nix.conf that make one process of Nix ask the proxy, and believe
// what the key has signed. Each call names another cache: Nix remembers for an hour, on disk,
// that a cache lacked a path, and here that changes by the second.
func (p *Proxy) Conf(key string) string {
	return fmt.Sprintf("extra-substituters = http://%s/%d\nextra-trusted-public-keys = %s\n", p.listener.Addr(), p.sessions.Add(1), key)
}

// Fetched is how many bytes of paths came from other builders.
func (p *Proxy) Fetched() int64 { return p.fetched.Load() }

// Close ends a proxy that is not served.
func (p *Proxy) Close() error { return p.listener.Close() }

// Serve answers until ctx ends.
func (p *Proxy) Serve(ctx context.Context) error {
	r := chi.NewRouter()
	r.Get("/{session}/nix-cache-info", func(w http.ResponseWriter, _ *http.Request) {
		// Before the caches of the Internet, which are further away.
		fmt.Fprint(w, "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 10\n")
	})
	r.Get("/{session}/{file}", p.narinfo)
	r.Head("/{session}/{file}", p.narinfo)
	r.Get("/{session}/nar/{file}", p.nar)
	server := &http.Server{
		Handler: r, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(p.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve this host's Nix: %w", err)
	}
	return nil
}

// narinfo tells what is known of a path that another builder could give.
func (p *Proxy) narinfo(w http.ResponseWriter, r *http.Request) {
	hash, ok := strings.CutSuffix(chi.URLParam(r, "file"), ".narinfo")
	path, peers, known := p.cfg.Follower.Lookup(hash)
	if !ok || !known || len(p.willing(peers)) == 0 {
		http.NotFound(w, r)
		return
	}
	info, err := path.narinfo(hash)
	if err != nil {
		p.log.Warn("the coordinator tells of a path what can't be", "path", path.Path, "error", err)
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", info.ContentType())
	fmt.Fprint(w, info)
}

// narinfo is the path as a binary cache tells of it.
func (p Path) narinfo(hash string) (*narinfo.NarInfo, error) {
	narHash, err := nixhash.ParseAny(p.NarHash, nil)
	if err != nil {
		return nil, err
	}
	sig, err := signature.ParseSignature(p.Signature)
	if err != nil {
		return nil, err
	}
	info := &narinfo.NarInfo{
		StorePath: p.Path, URL: "nar/" + hash + ".nar", Compression: "none",
		NarHash: narHash, NarSize: uint64(p.NarSize), FileHash: narHash, FileSize: uint64(p.NarSize),
		CA: p.CA, Signatures: []signature.Signature{sig},
	}
	if p.Deriver != "" {
		info.Deriver = path.Base(p.Deriver)
	}
	for _, r := range p.References {
		info.References = append(info.References, path.Base(r))
	}
	return info, info.Check()
}

// nar fetches a path from a builder that has it, and from the next one as long as Nix has
// got nothing yet.
func (p *Proxy) nar(w http.ResponseWriter, r *http.Request) {
	hash, _ := strings.CutSuffix(chi.URLParam(r, "file"), ".nar")
	path, peers, _ := p.cfg.Follower.Lookup(hash)
	for _, peer := range p.willing(peers) {
		if !p.begin(peer) {
			continue
		}
		n, err := p.fetch(r.Context(), w, peer, hash, path)
		p.end(peer, err != nil && r.Context().Err() == nil)
		p.fetched.Add(n)
		if err == nil {
			return
		}
		p.log.Debug("a builder did not give a path", "peer", peer.Name, "path", path.Path, "bytes", n, "error", err)
		if n > 0 || r.Context().Err() != nil {
			panic(http.ErrAbortHandler) // Nix must not take it for whole
		}
	}
	http.NotFound(w, r)
}

// willing are the peers that have not failed lately, in random order.
func (p *Proxy) willing(peers []Peer) (will []Peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, peer := range peers {
		if time.Now().Before(p.shuns[peer.Name].until) {
			continue
		}
		will = append(will, peer)
	}
	rand.Shuffle(len(will), func(i, j int) { will[i], will[j] = will[j], will[i] })
	return will
}

// begin counts a fetch from a peer; false if there are enough.
func (p *Proxy) begin(peer Peer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.active[peer.Name] >= perPeer {
		return false
	}
	p.active[peer.Name]++
	return true
}

func (p *Proxy) end(peer Peer, failed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.active[peer.Name]--; p.active[peer.Name] == 0 {
		delete(p.active, peer.Name)
	}
	if failed {
		// Fetches that fail at the same time count once.
		if s := p.shuns[peer.Name]; !time.Now().Before(s.until) {
			p.shuns[peer.Name] = shun{time.Now().Add(p.cfg.Shun << min(s.times, 6)), s.times + 1}
		}
	} else {
		delete(p.shuns, peer.Name)
	}
}

var errStalled = errors.New("nothing came for too long")

// fetch passes a path on, and returns how many bytes of it.
func (p *Proxy) fetch(ctx context.Context, w http.ResponseWriter, peer Peer, hash string, path Path) (int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	alarm := time.AfterFunc(p.cfg.First, func() { cancel(errStalled) })
	defer alarm.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+peer.Addr.String()+"/nar/"+hash+".nar", nil)
	if err != nil {
		return 0, err
	}
	res, err := p.cfg.Transport.RoundTrip(req)
	if err != nil {
		return 0, cmp.Or(context.Cause(ctx), err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("it answers %s", res.Status)
	}
	// It is what the index says, or Nix will not have it; more than that nobody wants.
	body := io.LimitReader(res.Body, path.NarSize)
	buffer := make([]byte, 256<<10)
	control := http.NewResponseController(w)
	var sent int64
	for sent < path.NarSize {
		n, err := body.Read(buffer)
		if n > 0 {
			alarm.Reset(p.cfg.Stall)
			if sent == 0 {
				w.Header().Set("Content-Length", strconv.FormatInt(path.NarSize, 10))
			}
			_ = control.SetWriteDeadline(time.Now().Add(time.Minute)) // for Nix to take it
			if _, err := w.Write(buffer[:n]); err != nil {
				return sent + 1, fmt.Errorf("pass it on to Nix: %w", err)
			}
			sent += int64(n)
		}
		if err != nil && sent < path.NarSize {
			return sent, fmt.Errorf("it ended after %d of %d bytes: %w", sent, path.NarSize, cmp.Or(context.Cause(ctx), err))
		}
	}
	return sent, nil
}
