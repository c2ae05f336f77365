package coordinator

import (
	"context"
	"log/slog"
	"time"
)

// Config is what a cluster is made from.
type Config struct {
	ID       string   // cluster id, 1 to 512 characters
	Builders []string // names as the workflow gave them, one a builder

	// Label is how the tailnet sanitises a host name. If nil, [strings.ToLower].
	Label func(string) string
	// Quorum is how many builders must be ready before builds may start. If zero, all.
	Quorum int
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

// Dispatch is what a stop does to Nix on the coordinator's host. Both methods may
// be called again after they failed or succeeded.
type Dispatch interface {
	// Close makes Nix dispatch nothing more: the list of machines is emptied.
	Close(context.Context) error
	// Restore makes the host's files as they would be without the cluster.
	Restore(context.Context) error
}

// Journal keeps a cluster's [Record] over restarts of its process. It is used by
// one goroutine at a time.
type Journal interface {
	// Load returns what was saved last, and false if nothing ever was.
	Load() (Record, bool, error)
	// Save returns when the record would survive the machine's crash.
	Save(Record) error
}
