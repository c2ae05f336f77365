package builder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// ErrReplaced says that a newer instance or another node took this builder's
// place. There is nothing left to do: two agents with one name on a host, or two
// hosts with one name.
var ErrReplaced = errors.New("another instance took this builder's place")

// Candidate is who may be the coordinator.
type Candidate struct {
	Name string // for people
	Base string // of its API, http://ADDRESS:PORT/v1
}

// Config is what an [Agent] works with.
type Config struct {
	Cluster string // id of the cluster that it belongs to
	Name    string // its name as the workflow gave it

	// Label is how the tailnet sanitises a host name. If nil, [strings.ToLower].
	Label func(string) string
	// Coordinators returns who may be the coordinator, the likeliest first. It is
	// asked again and again: the tailnet's list grows.
	Coordinators func(context.Context) ([]Candidate, error)
	// Transport carries the requests; it should keep connections.
	Transport http.RoundTripper
	// Offer measures what this host offers. It is called once; an error ends the
	// agent, for nothing can be built here.
	Offer func(context.Context) (apiclient.Offer, error)
	// Vitals measures how this host is, every 10 s while it is claimed.
	Vitals func(context.Context) (apiclient.Vitals, error)
	// Builds counts the builds that run, each second while the host is claimed. If
	// nil, the vitals don't tell what this builder did. It, Offer and Vitals must
	// return when their context ends.
	Builds func(context.Context) (int, error)

	// Serve is told of the coordinator whose builds may run here, when it has claimed this
	// builder, when it is somewhere else, and when it is heard again after a Fence.
	// The key is the public one that signs what its builders share; empty if they do not.
	Serve func(at Candidate, key string)
	// Fence is told that nobody's builds may run here any more, and why: the coordinator has
	// not acknowledged anything for a lease, and takes this builder for lost, or this
	// builder leaves. Neither may wait for anything. Without one of them none is called.
	Fence func(reason string)

	// Timeout is how long to wait until somebody claims this builder. If zero,
	// [DefaultTimeout].
	Timeout time.Duration

	Out io.Writer    // a line for each thing a person wants to know; nil: nobody
	Log *slog.Logger // for whoever debugs; nil: nobody
}

// DefaultTimeout is how long a builder waits until somebody claims it.
const DefaultTimeout = 300 * time.Second

// Bounds of what a builder waits for.
const (
	vitalsEvery = 10 * time.Second // and so is a check-in renewed
	sayEvery    = 6                // vitals told to whom reads the log: each minute's
	askTime     = 5 * time.Second
	askAtOnce   = 16 // coordinators asked at a time
	cancelTime  = 2 * time.Second
)

// Agent is one builder process.
type Agent struct {
	Config
	instance uuid.UUID
	saying   sync.Mutex // held while a line goes to Out
}

// New returns an agent with an instance id of its own. Its error is a mistake in
// cfg.
func New(cfg Config) (*Agent, error) {
	switch {
	case cfg.Cluster == "" || cfg.Name == "":
		return nil, errors.New("builder: cluster and name must be set")
	case cfg.Coordinators == nil || cfg.Transport == nil || cfg.Offer == nil || cfg.Vitals == nil:
		return nil, errors.New("builder: Coordinators, Transport, Offer and Vitals must be set")
	case cfg.Timeout < 0:
		return nil, fmt.Errorf("builder: timeout %v is negative", cfg.Timeout)
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, DefaultTimeout)
	if cfg.Label == nil {
		cfg.Label = strings.ToLower
	}
	if cfg.Out == nil {
		cfg.Out = io.Discard
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Agent{Config: cfg, instance: uuid.New()}, nil
}

// Run lives the agent's life. It returns nil when the builder was told to leave
// or its coordinator fell silent; an [*UnclaimedError] when nobody claimed it;
// [ErrReplaced]; and the context's cause when that ended, at most 2 s later.
func (a *Agent) Run(ctx context.Context) error {
	a.say("looking for the coordinator of %s as %s, for %v at most", a.Cluster, a.Name, a.Timeout)
	c, err := a.look(ctx)
	if err != nil {
		return err
	}
	a.say("claimed by %s at %s; the cluster is %s", clean(c.at.Name), c.at.Base, c.ticket.phase)

	// Builds end when the good-bye was said: who is told why they do can send them elsewhere.
	c.guard = a.guard()
	c.guard.heard(c)
	defer c.guard.end("it has left its cluster")

	serving, end := context.WithCancel(ctx)
	host := &sampler{a: a, last: c.vitals}
	var sampling sync.WaitGroup
	vitals := make(chan *apiclient.Vitals, 1)
	sampling.Go(func() { host.run(serving, vitals) })
	teardown, err := a.stay(serving, c, vitals)
	end()
	sampling.Wait()
	c.vitals = host.farewell()

	last, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(cancelTime, cancel) })()
	switch {
	case teardown != nil:
		a.say("told to leave: %s", clean(teardown.Reason))
		if a.Builds != nil {
			a.say("%v", &host.work)
		}
		if err := a.depart(last, c, c.ticket.lease, apiclient.DepartureReasonTeardown, ""); err != nil {
			a.say("left, but could not say so: %v", err)
			return nil
		}
		a.say("left the cluster")
		return nil
	case ctx.Err() != nil:
		why, detail := "cancelled", ""
		if cause := context.Cause(ctx); cause != context.Canceled { // which only repeats the reason
			why, detail = cause.Error(), cause.Error()
		}
		a.say("leaving: %s", why)
		if err := a.depart(last, c, cancelTime, apiclient.DepartureReasonCancelled, detail); err != nil {
			a.Log.Warn("say good-bye", "error", err)
		}
		return context.Cause(ctx)
	case errors.Is(err, errSilent):
		a.say("%v: leaving", err)
		// It may hear, and only its answers be lost.
		if err := a.depart(last, c, time.Second, apiclient.DepartureReasonTimeout, err.Error()); err != nil {
			a.Log.Debug("say good-bye", "error", err)
		}
		return nil
	}
	return fmt.Errorf("builder %s: %w", a.Name, err)
}

// say writes a line for the person who reads the job's log.
func (a *Agent) say(format string, args ...any) {
	a.saying.Lock()
	defer a.saying.Unlock()
	fmt.Fprintf(a.Out, format+"\n", args...)
}

// clean makes one printable line, not too long, of what somebody else wrote. A
// job's log takes commands.
func clean(s string) string {
	const limit = 300
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(s, "?") {
		if b.Len() >= limit {
			b.WriteString("...")
			break
		}
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == '\u2028' || r == '\u2029' {
			r = ' '
		}
		b.WriteRune(r)
	}
	return strings.TrimSpace(b.String())
}
