package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
)

// Cluster is what a dispatcher needs of a cluster; [coordinator.Cluster] is one.
type Cluster interface {
	Await(ctx context.Context, after int64, wait time.Duration) coordinator.View
	Reached(id uuid.UUID, way string)
	Verified(id uuid.UUID, maxJobs, speedFactor int) error
	Note(id uuid.UUID, reason string)
	Reject(id uuid.UUID, reason string) error
}

// Peer is what the tailnet says of a builder's node.
type Peer struct {
	Addr     netip.Addr
	HostKeys []string // SSH host keys that the tailnet publishes, "TYPE BASE64" each
}

// Files are absolute paths.
type Files struct {
	Machines   string // Nix' machines file
	NixConf    string // nix.conf
	SSHConfig  string // root's ssh_config
	KnownHosts string // a known_hosts file of our own
	Hosts      string // /etc/hosts; empty: builders' names are not written there
	// UserConf is the nix.conf of the user that the daemon runs as, root's as a rule.
	// Only with a Hook.
	UserConf string
}

// Scheduler decides where builds go that come by the hook; [scheduler.Scheduler] is one.
type Scheduler interface {
	// Set tells of all machines that there are.
	Set([]scheduler.Machine)
	// Lose tells why one of them will be absent from the next Set.
	Lose(machine, reason string)
	// Close says that there will be no more builds.
	Close()
	// Running counts the builds of each machine.
	Running() map[string]int
}

// Config is what a dispatcher is made from.
type Config struct {
	// ID is the cluster's id, by which blocks in files are told apart.
	ID    string
	Files Files
	// Peer asks the tailnet for a node, by its stable id.
	Peer func(ctx context.Context, node string) (Peer, error)
	// Check opens a builder's store, as [nix.Programs.CheckStore] does.
	Check func(ctx context.Context, m nix.Machine) (nix.Store, error)
	// Restart makes the Nix daemon read nix.conf again, as [nix.Daemon.Restart] does.
	Restart func(ctx context.Context) error
	// Links lists the builds that Nix has sent away, as [nix.Links] does. If nil, nobody
	// looks: none is counted, and none is ended when its builder is gone.
	Links func(ctx context.Context) ([]nix.Link, error)

	// Hook is the program, with its arguments, that Nix starts as its build hook, and
	// Scheduler is whom it asks. If empty, Nix dispatches by the machines file alone; it
	// also does when the hook finds no scheduler.
	Hook      []string
	Scheduler Scheduler

	// Direct is how Nix reaches builders' stores without ssh. If nil, it does not.
	Direct *Direct

	// MaxJobs is how many builds a builder gets at a time that does not say it itself. If
	// zero, as many as its cores and memory allow, see [nix.MaxJobs].
	MaxJobs int
	// SpeedFactor is that of a builder that does not say it itself. If zero, 1.
	SpeedFactor int
	// Proxy is a program with arguments that ssh connects through, %h and %p standing for
	// address and port. If empty, ssh has a route to the tailnet.
	Proxy []string

	// Lease is that of the cluster: ssh gives a silent builder up within it. If zero,
	// [coordinator.DefaultLease].
	Lease time.Duration
	// PeerTimeout bounds one call of Peer. If zero, 10 s.
	PeerTimeout time.Duration
	// CheckTimeout bounds one call of Check. If zero, 40 s.
	CheckTimeout time.Duration
	// Parallel is how many builders are checked at a time. If zero, 32.
	Parallel int

	Log *slog.Logger // if nil, nothing is logged
}

// Dispatcher keeps Nix true to a cluster. It is the cluster's [coordinator.Dispatch]. Make
// it with [New].
type Dispatcher struct {
	cfg Config
	log *slog.Logger

	// slots holds a token for each check that runs.
	slots chan struct{}
	// daemon holds one token: who has it changes nix.conf or restarts the daemon.
	daemon chan struct{}
	// read is how many of the changes the daemon has read. The token guards it.
	read int

	mu     sync.Mutex // held while files are written; guards all below
	closed bool       // nothing may be written any more, only taken out
	// changes counts our changes of nix.conf and UserConf.
	changes int
	// machines are those that the file has, by name.
	machines map[string]nix.Machine
}

var errClosed = errors.New("dispatch is closed")

// New makes a dispatcher. It touches nothing before Run.
func New(cfg Config) (*Dispatcher, error) {
	for name, path := range map[string]string{
		"machines file": cfg.Files.Machines, "nix.conf": cfg.Files.NixConf,
		"ssh_config": cfg.Files.SSHConfig, "known_hosts file": cfg.Files.KnownHosts,
	} {
		if !filepath.IsAbs(path) {
			return nil, fmt.Errorf("new dispatcher: the path of the %s, %q, is not absolute", name, path)
		}
	}
	if path := cfg.Files.Hosts; path != "" && !filepath.IsAbs(path) {
		return nil, fmt.Errorf("new dispatcher: the path of the hosts file, %q, is not absolute", path)
	}
	if (len(cfg.Hook) == 0) != (cfg.Scheduler == nil) {
		return nil, errors.New("new dispatcher: a hook needs a scheduler, and a scheduler a hook")
	}
	if len(cfg.Hook) > 0 && !filepath.IsAbs(cfg.Files.UserConf) {
		return nil, fmt.Errorf("new dispatcher: the path of the daemon's user's nix.conf, %q, is not absolute", cfg.Files.UserConf)
	}
	if cfg.ID == "" || cfg.Peer == nil || cfg.Check == nil || cfg.Restart == nil {
		return nil, errors.New("new dispatcher: ID, Peer, Check and Restart are needed")
	}
	if cfg.MaxJobs < 0 || cfg.SpeedFactor < 0 || cfg.Parallel < 0 || cfg.Lease < 0 || cfg.PeerTimeout < 0 || cfg.CheckTimeout < 0 {
		return nil, errors.New("new dispatcher: a number in its configuration is negative")
	}
	if cfg.Lease == 0 {
		cfg.Lease = coordinator.DefaultLease
	}
	if cfg.PeerTimeout == 0 {
		cfg.PeerTimeout = 10 * time.Second
	}
	if cfg.CheckTimeout == 0 {
		cfg.CheckTimeout = 40 * time.Second
	}
	if cfg.Parallel == 0 {
		cfg.Parallel = 32
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Dispatcher{
		cfg: cfg, log: cfg.Log,
		slots:    make(chan struct{}, cfg.Parallel),
		daemon:   make(chan struct{}, 1),
		machines: map[string]nix.Machine{},
	}, nil
}

// Run keeps Nix true to the cluster until ctx ends, and then leaves the files as they are.
// It returns an error only if Nix can't be told of builders at all: nix.conf can't be
// written, or the daemon does not come back. Call it once.
func (d *Dispatcher) Run(ctx context.Context, cluster Cluster) error {
	ctx, cancel := context.WithCancel(ctx)
	r := &reconciler{
		d:       d,
		cluster: cluster,
		members: map[uuid.UUID]*member{},
		gone:    map[string]time.Time{},
		known:   map[string]bool{},
		events:  make(chan event, d.cfg.Parallel),
		wake:    make(chan struct{}, 1),
	}
	defer r.goroutines.Wait()
	defer cancel()
	introduced := make(chan error, 1)
	r.goroutines.Go(func() { introduced <- d.introduce(ctx) })
	r.goroutines.Go(func() { r.watch(ctx) })
	return r.loop(ctx, introduced)
}
