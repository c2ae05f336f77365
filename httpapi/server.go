package httpapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// What a zero value in Config stands for.
const (
	DefaultBuilderTag     = "tag:nix-ci-builder"
	DefaultCoordinatorTag = "tag:nix-ci-coordinator"
)

// Config is what a Server is made from.
type Config struct {
	Cluster *coordinator.Cluster

	// WhoIs says who is at the other end of the connection from remoteAddr, IP:PORT. An
	// error means that the tailnet does not know them. It is called for every request but
	// those over Local listeners, after the request's head was read.
	WhoIs func(ctx context.Context, remoteAddr string) (Caller, error)

	// Self is the coordinator's own node, for calls over Local listeners. It may be zero.
	Self Caller

	BuilderTag     string // if empty, DefaultBuilderTag
	CoordinatorTag string // if empty, DefaultCoordinatorTag

	// Hosts are the names and addresses that requests may be made to, without port: the
	// node's tailnet addresses and names, and what the loopback goes by if it is used. The
	// address at which a connection arrived always counts as one of them.
	Hosts []string

	// Paths is what has changed since after of the store paths that builders share; it
	// waits for something to, for as long as wait. If nil, they share none.
	Paths func(ctx context.Context, after int64, wait time.Duration) apiclient.PathPage
	// PathKey is the public key that signs them, for the builders.
	PathKey string

	Contract   []byte                 // openapi.yaml
	Collectors []prometheus.Collector // shown in /metrics besides the server's own
	Log        *slog.Logger           // if nil, nothing is logged
	Limits     Limits
}

// Limits bound what callers may take. If a field is zero, its default is used.
type Limits struct {
	Head  time.Duration // for a request's head to arrive; 10 s
	Body  time.Duration // for a request's body to arrive; 10 s
	Idle  time.Duration // between requests of one connection; 2 min
	Write time.Duration // for an answer, or a part of a stream, to be taken; 30 s
	WhoIs time.Duration // for the tailnet to say who calls; 5 s
	Alive time.Duration // between signs of life in an event stream; 15 s
	Close time.Duration // for the server to end; 5 s

	Conns        int // connections in all; 16384
	ConnsPerAddr int // connections from one address, unless it is the loopback; 128
	PerNode      int // requests of one node at a time; 64
	Streams      int // event streams of one node at a time; 4
	Calls        int // calls of one node a second, four times as many at once; 50
	CheckIns     int // check-ins of one node a second, 16 times as many at once; 1
	Lines        int // lines of the log a second but for debug, ten times as many at once; 20
}

func (l Limits) orDefault() Limits {
	return Limits{
		Head:         cmp.Or(l.Head, 10*time.Second),
		Body:         cmp.Or(l.Body, 10*time.Second),
		Idle:         cmp.Or(l.Idle, 2*time.Minute),
		Write:        cmp.Or(l.Write, 30*time.Second),
		WhoIs:        cmp.Or(l.WhoIs, 5*time.Second),
		Alive:        cmp.Or(l.Alive, 15*time.Second),
		Close:        cmp.Or(l.Close, 5*time.Second),
		Conns:        cmp.Or(l.Conns, 16384),
		ConnsPerAddr: cmp.Or(l.ConnsPerAddr, 128),
		PerNode:      cmp.Or(l.PerNode, 64),
		Streams:      cmp.Or(l.Streams, 4),
		Calls:        cmp.Or(l.Calls, 50),
		CheckIns:     cmp.Or(l.CheckIns, 1),
		Lines:        cmp.Or(l.Lines, 20),
	}
}

// maxHead bounds a request's head in bytes. The longest that the contract allows is a stop
// that names 256 builders of 253 characters.
const maxHead = 96 << 10

// Server serves one cluster's API. It is an http.Handler; Serve adds what has to do with
// connections.
type Server struct {
	cluster        *coordinator.Cluster
	whoIs          func(context.Context, string) (Caller, error)
	self           Caller
	builderTag     string
	coordinatorTag string
	hosts          map[string]bool
	paths          func(context.Context, int64, time.Duration) apiclient.PathPage
	pathKey        string
	contract       []byte
	log            *slog.Logger
	limits         Limits

	metrics *metrics
	nodes   *nodes
	http.Handler
}

// New returns a server of cfg.Cluster. Its error is a mistake in cfg.
func New(cfg Config) (*Server, error) {
	if cfg.Cluster == nil || cfg.WhoIs == nil {
		return nil, errors.New("serve a cluster: Cluster and WhoIs must be set")
	}
	s := &Server{
		cluster:        cfg.Cluster,
		whoIs:          cfg.WhoIs,
		self:           cfg.Self,
		builderTag:     cmp.Or(cfg.BuilderTag, DefaultBuilderTag),
		coordinatorTag: cmp.Or(cfg.CoordinatorTag, DefaultCoordinatorTag),
		hosts:          make(map[string]bool),
		paths:          cfg.Paths,
		pathKey:        cfg.PathKey,
		contract:       cfg.Contract,
		log:            cfg.Log,
		limits:         cfg.Limits.orDefault(),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.log = slog.New(fewLines(s.log.Handler(), s.limits.Lines))
	for _, host := range cfg.Hosts {
		s.hosts[canonicalHost(host)] = true
	}
	s.nodes = newNodes(s.limits)
	var err error
	if s.metrics, err = newMetrics(cfg.Cluster, cfg.Collectors); err != nil {
		return nil, fmt.Errorf("serve a cluster: %w", err)
	}
	s.Handler = s.router()
	return s, nil
}

// Serve answers on the listeners until ctx ends or one of them fails, and closes them all.
// Before it returns it answers what waits and lets answers go out, for Limits.Close at
// most; connections that are still busy then are cut off, and the log says so. It leaves the
// cluster as it is: stop it first if its builders are to leave.
//
// The error is that of a listener; nil if ctx ended.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	base, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(errEnding)
	server := &http.Server{
		Handler:           s,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       connContext,
		ReadHeaderTimeout: s.limits.Head,
		IdleTimeout:       s.limits.Idle,
		WriteTimeout:      s.limits.Write,
		MaxHeaderBytes:    maxHead,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)

	bounds := newConns(s.limits.Conns, s.limits.ConnsPerAddr, s.metrics.refused.Inc)
	running, ctx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		running.Go(func() error {
			if err := server.Serve(bounds.listen(l)); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve on %s: %w", l.Addr(), err)
			}
			return nil
		})
	}
	running.Go(func() error {
		<-ctx.Done()
		end(errEnding)
		ending, cancel := context.WithTimeout(context.WithoutCancel(base), s.limits.Close)
		defer cancel()
		if err := server.Shutdown(ending); err != nil {
			s.log.Warn("cut off connections that were still busy at the end", "error", err)
			return server.Close()
		}
		return nil
	})
	return running.Wait()
}
