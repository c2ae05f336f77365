package coordinator

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Config is what a cluster is made from.
type Config struct {
	ID       string   // cluster id, 1 to 512 characters
	Builders []string // names as the workflow gave them, one a builder

	// Label is how the tailnet sanitises a host name. If nil, [strings.ToLower].
	Label func(string) string
	// Quorum is how many builders must be ready before builds may start. If zero, all,
	// or as few as SystemQuorum takes.
	Quorum int
	// SystemQuorum is how many of them must build for each of these Nix systems.
	SystemQuorum map[string]int
	// KeepStrained is whether builders that are short of disk or memory get new builds
	// all the same.
	KeepStrained bool
	// Lease is the silence after which a builder is lost. If zero, [DefaultLease].
	Lease time.Duration
	// GatherTimeout is how long to wait for the quorum, from [Cluster.Run] on. If
	// zero, [DefaultGatherTimeout].
	GatherTimeout time.Duration
	// DispatchTimeout bounds each call to Dispatch in a stop. If zero,
	// [DefaultDispatchTimeout].
	DispatchTimeout time.Duration
	// MaxBuilders bounds len(Builders). If zero, [DefaultMaxBuilders].
	MaxBuilders int
	// Events is how many events are kept for readers that resume. If zero,
	// [DefaultEvents].
	Events int

	Log      *slog.Logger // if nil, nothing is logged
	Journal  Journal      // if nil, the cluster does not outlive its process
	Dispatch Dispatch     // if nil, there is nothing to close or restore
}

// What a zero value in [Config] stands for.
const (
	DefaultLease           = 45 * time.Second
	DefaultGatherTimeout   = 360 * time.Second
	DefaultDispatchTimeout = 10 * time.Second
	DefaultMaxBuilders     = 256
	DefaultEvents          = 1024
)

// Dispatch is Nix on the coordinator's host, as a stop sees it. Its methods may be
// called again after they failed or succeeded.
type Dispatch interface {
	// Close makes Nix dispatch nothing more: the list of machines is emptied.
	Close(context.Context) error
	// Restore makes the host's files as they would be without the cluster.
	Restore(context.Context) error
	// Builds returns how many builds run on each builder that has any, by its name in
	// lower case: those that Nix waits for, their copying included.
	Builds(context.Context) (map[string]int, error)
}

// fill checks the configuration, puts the defaults in and returns the label of
// each builder.
func (cfg *Config) fill() (labels []string, err error) {
	if n := utf8.RuneCountInString(cfg.ID); n < 1 || n > limits["/cluster"].MaxLength {
		return nil, fmt.Errorf("the cluster id has %d characters: give it 1 to %d", n, limits["/cluster"].MaxLength)
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
		zero  time.Duration
	}{
		{"lease", &cfg.Lease, DefaultLease},
		{"gather timeout", &cfg.GatherTimeout, DefaultGatherTimeout},
		{"dispatch timeout", &cfg.DispatchTimeout, DefaultDispatchTimeout},
	} {
		if *d.value < 0 {
			return nil, fmt.Errorf("the %s is negative: %v", d.name, *d.value)
		}
		*d.value = cmp.Or(*d.value, d.zero)
	}
	cfg.MaxBuilders = cmp.Or(cfg.MaxBuilders, DefaultMaxBuilders)
	cfg.Events = cmp.Or(cfg.Events, DefaultEvents)
	if cfg.Label == nil {
		cfg.Label = strings.ToLower
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Dispatch == nil {
		cfg.Dispatch = noDispatch{}
	}
	cfg.Builders = slices.Clone(cfg.Builders)
	n := len(cfg.Builders)
	if n < 1 || n > cfg.MaxBuilders {
		return nil, fmt.Errorf("%d builders are expected: name 1 to %d", n, cfg.MaxBuilders)
	}
	if cfg.Quorum < 0 || cfg.Quorum > n {
		return nil, fmt.Errorf("the quorum is %d of %d builders: give 1 to %d, or 0 for all", cfg.Quorum, n, n)
	}
	least := n
	for system, needed := range cfg.SystemQuorum {
		if err := limits["/offer/systems/*"].text("/system", system); err != nil {
			return nil, fmt.Errorf("the quorum of system %q: %s", system, err.Why)
		}
		if needed < 1 || needed > n {
			return nil, fmt.Errorf("the quorum of %s is %d of %d builders: give 1 to %d", system, needed, n, n)
		}
	}
	if len(cfg.SystemQuorum) > 0 {
		least = slices.Max(slices.Collect(maps.Values(cfg.SystemQuorum)))
	}
	cfg.SystemQuorum = maps.Clone(cfg.SystemQuorum)
	cfg.Quorum = cmp.Or(cfg.Quorum, least)
	return cfg.labels()
}

// poll is the longest poll: two of three may be lost before the lease is over.
func (cfg *Config) poll() time.Duration { return cfg.Lease / 3 }

// grace is what a builder gets to call again whose poll broke.
func (cfg *Config) grace() time.Duration { return cfg.Lease / 3 }

// labels returns what the tailnet makes of each builder's name.
func (cfg *Config) labels() ([]string, error) {
	names := make(map[string]string) // by label
	labels := make([]string, 0, len(cfg.Builders))
	for _, name := range cfg.Builders {
		if err := limits["/name"].text("/name", name); err != nil {
			return nil, fmt.Errorf("builder name %q: %s", name, err.Why)
		}
		label := cfg.Label(name)
		if label == "" {
			return nil, fmt.Errorf("builder name %q: a tailnet has no host name for it", name)
		}
		if other, ok := names[label]; ok {
			return nil, fmt.Errorf("builder names %q and %q are the same host name on a tailnet, %q: change one", other, name, label)
		}
		names[label] = name
		labels = append(labels, label)
	}
	return labels, nil
}

// noDispatch is a host on which there is nothing to close or restore.
type noDispatch struct{}

func (noDispatch) Close(context.Context) error   { return nil }
func (noDispatch) Restore(context.Context) error { return nil }

func (noDispatch) Builds(context.Context) (map[string]int, error) { return nil, nil }
