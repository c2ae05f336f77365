package feed

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nix-community/go-nix/pkg/nar"
)

// NarPattern is what a [Server] answers, as a pattern of chi.
const NarPattern = narPrefix + "*"

const (
	narPrefix = "/nar/"
	narSuffix = ".nar"
	narType   = "application/x-nix-nar"
)

// ServerConfig is what a Server is made from.
type ServerConfig struct {
	Follower *Follower
	// Valid tells whether a path is in this host's store, all of it.
	Valid    func(ctx context.Context, path string) (bool, error)
	StoreDir string       // if empty, /nix/store
	Log      *slog.Logger // if nil, nothing is logged
}

// Bounds of a server.
const (
	maxNars    = 64 // that are sent at a time
	validTime  = time.Second
	hearTime   = 500 * time.Millisecond // for the follower to hear of a path that a peer knows
	takeTime   = 30 * time.Second       // for a part of a NAR to be taken
	narBuffer  = 256 << 10
	defaultDir = "/nix/store"
)

// A Server gives paths of this host's store to other builders' proxies. Who may call it is
// decided before: peers of the follower's ([Follower.IsPeer]).
type Server struct {
	cfg   ServerConfig
	log   *slog.Logger
	slots chan struct{} // one for each NAR that is sent
	given tally
}

// NewServer returns a server of what the follower knows and the store has.
func NewServer(cfg ServerConfig) *Server {
	cfg.StoreDir = cmp.Or(cfg.StoreDir, defaultDir)
	return &Server{cfg: cfg, log: cmp.Or(cfg.Log, slog.New(slog.DiscardHandler)), slots: make(chan struct{}, maxNars)}
}

// Given counts what was sent to peers, in whole.
func (s *Server) Given() Count { return s.given.count() }

// ServeHTTP answers GET /nar/HASH.nar.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	hash, ok := narHash(r.URL.Path, narPrefix)
	switch {
	case !ok:
		http.NotFound(w, r)
		return
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "only GET", http.StatusMethodNotAllowed)
		return
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		http.Error(w, "too many at a time", http.StatusServiceUnavailable)
		return
	}
	p, err := s.find(r.Context(), hash)
	if err != nil {
		s.log.Debug("a path that a peer asked for", "hash", hash, "error", err)
		http.Error(w, "it is not here", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", narType)
	w.Header().Set("Content-Length", strconv.FormatInt(p.NarSize, 10))
	if err := s.send(w, p); err != nil {
		s.log.Debug("a path was not sent to a peer in whole", "path", p.Path, "error", err)
		panic(http.ErrAbortHandler) // the peer sees that it has not all of it
	}
	s.given.add(p.NarSize)
}

// find returns a path of this cluster that is in this store.
func (s *Server) find(ctx context.Context, hash string) (Path, error) {
	hearing, cancel := context.WithTimeout(ctx, hearTime)
	defer cancel()
	p, ok := s.cfg.Follower.Await(hearing, hash)
	if !ok {
		return Path{}, errors.New("the cluster has no such path")
	}
	// Half a path may lie there while it is copied or built.
	asking, cancel := context.WithTimeout(ctx, validTime)
	defer cancel()
	valid, err := s.cfg.Valid(asking, p.Path)
	if err == nil && !valid {
		err = errors.New("it is not valid here")
	}
	return p, err
}

// send writes the path's NAR.
func (s *Server) send(w http.ResponseWriter, p Path) error {
	out := newTaken(w, takeTime)
	buffer := bufio.NewWriterSize(out, narBuffer)
	if err := nar.DumpPath(buffer, filepath.Join(s.cfg.StoreDir, filepath.Base(p.Path))); err != nil {
		return err
	}
	if err := buffer.Flush(); err != nil {
		return err
	}
	if out.written != p.NarSize {
		return fmt.Errorf("it has %d bytes here, not %d", out.written, p.NarSize)
	}
	return nil
}

// taken is a response each part of which is to be taken within a bound. What comes later on
// the connection is not bound by it: net/http sees to that.
type taken struct {
	w       http.ResponseWriter
	control *http.ResponseController
	bound   time.Duration
	written int64
}

func newTaken(w http.ResponseWriter, bound time.Duration) *taken {
	return &taken{w: w, control: http.NewResponseController(w), bound: bound}
}

func (t *taken) Write(b []byte) (int, error) {
	if err := t.control.SetWriteDeadline(time.Now().Add(t.bound)); err != nil {
		return 0, err
	}
	n, err := t.w.Write(b)
	t.written += int64(n)
	return n, err
}

// narHash returns HASH of the path PREFIX HASH.nar.
func narHash(path, prefix string) (string, bool) {
	hash, ok := strings.CutPrefix(path, prefix)
	if !ok {
		return "", false
	}
	hash, ok = strings.CutSuffix(hash, narSuffix)
	return hash, ok && isHash(hash)
}
