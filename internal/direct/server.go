package direct

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
	"golang.org/x/sync/errgroup"
)

// DefaultPort is where an agent serves its store, unless its settings say otherwise.
const DefaultPort = 8379

// Config is what a [Server] is made from.
type Config struct {
	// WhoIs says who is at the other end of the connection from remoteAddr, IP:PORT. An
	// error means that the tailnet does not know them. It is called for every request,
	// after its head was read.
	WhoIs func(ctx context.Context, remoteAddr string) (Caller, error)
	// CoordinatorTag is the tailnet tag that a coordinator has.
	CoordinatorTag string

	// Command is the program that serves the store on its standard streams, by its
	// absolute path, with its arguments: nix-daemon --stdio.
	Command []string
	// Env gives the environment of the next of its processes. If nil, it is empty.
	Env func() []string
	// Spare is how many processes are kept ready, so that who calls need not wait for one
	// to start.
	Spare int

	// StoreSpace gives the bytes that there are for the store, and how many are left. If
	// nil, a disk that is full is not seen.
	StoreSpace func(context.Context) (total, free uint64, err error)
	// OOMKills counts the processes that were ended for want of memory since the host was
	// booted. If nil, they are not seen. It and StoreSpace are called by many at a time.
	OOMKills func() (int64, error)

	Limits Limits
	Log    *slog.Logger // if nil, nothing is logged
}

// Limits bound what callers may take. If a field is zero, its default is used.
type Limits struct {
	Head     time.Duration // for a request's head to arrive; 10 s
	Idle     time.Duration // between requests of one connection; 2 min
	WhoIs    time.Duration // for the tailnet to say who calls; 5 s
	Grace    time.Duration // for a process to end by itself when its caller has gone; 5 s
	Fence    time.Duration // and when it is fenced; 1 s
	Sessions int           // at a time; 256
	Conns    int           // connections that are no session; 256
}

func (l Limits) orDefault() Limits {
	return Limits{
		Head:     cmp.Or(l.Head, 10*time.Second),
		Idle:     cmp.Or(l.Idle, 2*time.Minute),
		WhoIs:    cmp.Or(l.WhoIs, 5*time.Second),
		Grace:    cmp.Or(l.Grace, 5*time.Second),
		Fence:    cmp.Or(l.Fence, time.Second),
		Sessions: cmp.Or(l.Sessions, 256),
		Conns:    cmp.Or(l.Conns, 256),
	}
}

// A Server serves the store of a builder's host to its coordinator. Make it with [New].
type Server struct {
	cfg     Config
	limits  Limits
	log     *slog.Logger
	router  chi.Router
	witness witness
	conns   atomic.Int64

	// work are the sessions, and what ends or starts processes. Each ends by itself soon
	// after a fence.
	work sync.WaitGroup

	mu          sync.Mutex // guards what follows
	coordinator netip.Addr // zero: nobody has claimed this builder yet
	fenced      string     // why nobody is served; empty: the coordinator is
	closed      bool       // for good
	fencedAt    time.Time  // when it was fenced last
	sessions    map[*session]bool
	spares      []*daemon
	starting    int // spares that are being started
}

// New makes a server. Its error is a mistake in cfg.
func New(cfg Config) (*Server, error) {
	if cfg.WhoIs == nil || cfg.CoordinatorTag == "" {
		return nil, errors.New("serve a store: WhoIs and CoordinatorTag must be set")
	}
	if len(cfg.Command) == 0 || !filepath.IsAbs(cfg.Command[0]) {
		return nil, errors.New("serve a store: its program must be named by an absolute path")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		cfg:      cfg,
		limits:   cfg.Limits.orDefault(),
		log:      cfg.Log,
		router:   chi.NewRouter(),
		witness:  witness{space: cfg.StoreSpace, kills: cfg.OOMKills},
		sessions: map[*session]bool{},
	}
	s.router.Method(http.MethodGet, storePath, s.only(s.ofCoordinator, http.HandlerFunc(s.store)))
	s.router.Method(http.MethodGet, conditionsPath, s.only(s.ofCoordinator, http.HandlerFunc(s.conditions)))
	return s, nil
}

// Handle has h answer the requests that a pattern of chi fits, of callers whom allow lets
// through; h finds them with [CallerOf]. Call it before Serve.
func (s *Server) Handle(pattern string, allow func(Caller) error, h http.Handler) {
	s.router.Handle(pattern, s.only(allow, h))
}

// Serve answers callers on the listeners, which it closes, until ctx ends; then it fences
// the server for good and returns when all that it has started is gone.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	hs := &http.Server{
		Handler:           noBody(s.router),
		ReadHeaderTimeout: s.limits.Head,
		IdleTimeout:       s.limits.Idle,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnState:         s.count,
	}
	running, ctx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		running.Go(func() error {
			if err := hs.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve the store on %v: %w", l.Addr(), err)
			}
			return nil
		})
	}
	running.Go(func() error {
		s.watch(ctx)
		s.close("its agent has ended")
		return hs.Close()
	})
	err := running.Wait()
	s.work.Wait()
	return err
}

// count bounds the connections: one over the bound is closed at once. Sessions have a bound
// of their own.
func (s *Server) count(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if s.conns.Add(1) > int64(s.limits.Conns) {
			conn.Close()
		}
	case http.StateHijacked, http.StateClosed:
		s.conns.Add(-1)
	}
}

// noBody refuses requests that bring something. Nobody here wants it, and the server would
// wait for it before it answers, for as long as the caller likes.
func noBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 0 {
			next.ServeHTTP(w, r)
			return
		}
		_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0)) // or the connection is closed already
		http.Error(w, "a request has nothing to bring", http.StatusBadRequest)
	})
}

// Claim opens the store to the coordinator at this address, and to nobody else. It ends a
// fence, and the sessions of another coordinator.
func (s *Server) Claim(coordinator netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if s.coordinator.IsValid() && s.coordinator != coordinator {
		s.cutLocked()
	}
	s.coordinator, s.fenced = coordinator, ""
	s.refillLocked()
}

// Fence ends all sessions and whatever they have begun within 2 s, and lets none begin
// until the next claim. It does not wait.
func (s *Server) Fence(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fenceLocked(reason)
}

func (s *Server) fenceLocked(reason string) {
	if s.fenced != "" {
		return
	}
	if n := len(s.sessions); n > 0 {
		s.log.Debug("ending what the coordinator has begun here", "sessions", n, "reason", reason)
	}
	s.fenced, s.fencedAt = reason, time.Now()
	s.cutLocked()
}

// close fences the server for good.
func (s *Server) close(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fenceLocked(reason)
	s.closed = true
}

func (s *Server) cutLocked() {
	for ss := range s.sessions {
		ss.cut()
	}
	for _, d := range s.spares {
		s.work.Go(func() { s.end(d, s.limits.Fence) })
	}
	s.spares = nil
}

// Sessions is how many there are.
func (s *Server) Sessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}
