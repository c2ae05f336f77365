package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/Misaka13514/setup-distributed-nix-builds/builder"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/measure"
	"github.com/Misaka13514/setup-distributed-nix-builds/httpapi"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

const (
	agentsSize    = 256
	agentsNodes   = 32   // of them tailnet nodes
	agentsRelease = .250 // seconds
)

// releaseAgents lets 256 of the builder's own agents be released by one coordinator: once
// with 32 of them on a tailnet and the others on the loopback, and once with all on the
// loopback, which leaves out what 33 network stacks in one process cost.
func releaseAgents(ctx context.Context, b *bench) (_ []*measure.Row, err error) {
	tn, err := startTailnet(ctx, agentsNodes)
	if err != nil {
		return nil, err
	}
	mixed, err := releaseRounds(ctx, b, tn, fmt.Sprintf("%d agents, %d of them tailnet nodes", agentsSize, agentsNodes))
	if err := errors.Join(err, tn.close()); err != nil {
		return nil, err
	}
	local, err := releaseRounds(ctx, b, nil, fmt.Sprintf("%d agents on the loopback", agentsSize))
	return append(mixed, local...), err
}

// releaseRounds makes a cluster and stops it, again and again.
func releaseRounds(ctx context.Context, b *bench, tn *tailnetOfNodes, what string) ([]*measure.Row, error) {
	told := measure.New(what+": call of stop to teardown at the agent", measure.Seconds, measure.Many)
	gone := measure.New(what+": call of stop to departure acknowledged", measure.Seconds, measure.Many)
	last := measure.New(what+": call of stop to last departure acknowledged", measure.Seconds, measure.Runs).Below(agentsRelease)
	for round := range b.rounds {
		of := crowd{cluster: fmt.Sprintf("bench/agents/%d/1", round), prefix: "nix-builder-bench", size: agentsSize}
		agents, err := releaseOnce(ctx, b, tn, of)
		if err != nil {
			return nil, fmt.Errorf("%s, round %d: %w", what, round+1, err)
		}
		var latest time.Duration
		for _, a := range agents {
			told.Took(a.told)
			gone.Took(a.gone)
			latest = max(latest, a.gone)
		}
		last.Took(latest)
	}
	return []*measure.Row{told, gone, last}, nil
}

// A release is how long after the call of stop an agent heard of it and was gone.
type release struct{ told, gone time.Duration }

func releaseOnce(ctx context.Context, b *bench, tn *tailnetOfNodes, of crowd) (_ []release, err error) {
	dir, err := os.MkdirTemp(b.dir, "agents-")
	if err != nil {
		return nil, err
	}
	l, base, err := listen()
	if err != nil {
		return nil, err
	}
	listeners, who := []net.Listener{l}, of.whoIs
	var tailnetBase string
	nodes := 0
	if tn != nil {
		nodes = len(tn.builders)
		var onTailnet net.Listener
		if onTailnet, tailnetBase, err = tn.listen(); err != nil {
			return nil, err
		}
		listeners = append(listeners, onTailnet)
		who = func(ctx context.Context, remote string) (httpapi.Caller, error) {
			if isLoopback(remote) {
				return of.whoIs(ctx, remote)
			}
			return tn.whoIs(ctx, remote)
		}
	}
	c, err := coordinate(dir, of, who, nil, listeners...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.end()) }()

	watches := make([]*watch, of.size)
	running, ctx := errgroup.WithContext(ctx)
	for i := range watches {
		watches[i] = &watch{next: of.transport(i)}
		at := base
		if i < nodes {
			watches[i].next, at = tn.transport(i), tailnetBase
		}
		a, err := builder.New(builder.Config{
			Cluster: of.cluster, Name: of.name(i), Transport: watches[i],
			Coordinators: func(context.Context) ([]builder.Candidate, error) {
				return []builder.Candidate{{Name: "nix-coordinator-bench", Base: at}}, nil
			},
			Offer:  func(context.Context) (apiclient.Offer, error) { return offer(), nil },
			Vitals: func(context.Context) (apiclient.Vitals, error) { return vitals(), nil },
			Out:    io.Discard,
		})
		if err != nil {
			return nil, err
		}
		running.Go(func() error {
			defer watches[i].next.CloseIdleConnections()
			return a.Run(ctx)
		})
	}
	if err := waitingPolls(ctx, base, of.size); err != nil {
		return nil, err
	}
	api, err := apiclient.New(base, nil)
	if err != nil {
		return nil, err
	}
	b.logf("  %s: all there", of.cluster)
	called := time.Now()
	if _, err := api.Stop(ctx, 30*time.Second); err != nil {
		return nil, err
	}
	if err := running.Wait(); err != nil {
		return nil, err
	}
	b.logf("  %s: all gone", of.cluster)
	all := make([]release, of.size)
	for i, w := range watches {
		if w.told.IsZero() || w.gone.IsZero() {
			return nil, fmt.Errorf("agent %d ended without its teardown or departure", i)
		}
		all[i] = release{w.told.Sub(called), w.gone.Sub(called)}
	}
	return all, nil
}

func isLoopback(remote string) bool {
	ap, err := netip.ParseAddrPort(remote)
	return err == nil && ap.Addr().IsLoopback()
}

// A watch notes when an agent hears of its teardown and when its departure is
// acknowledged.
type watch struct {
	next *http.Transport

	mu         sync.Mutex // guards what follows
	told, gone time.Time
}

func (w *watch) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := w.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case strings.HasSuffix(req.URL.Path, "/teardown") && res.StatusCode == http.StatusOK:
		w.told = time.Now()
	case strings.HasSuffix(req.URL.Path, "/departure") && res.StatusCode == http.StatusNoContent:
		w.gone = time.Now()
	}
	return res, nil
}
