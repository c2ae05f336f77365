package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/sshconf"
)

// probe finds out whether one builder's store answers, and tries until it does.
type probe struct {
	d       *Dispatcher
	m       *member // to name in events; only the reconciler's loop looks into it
	builder coordinator.Builder
	events  chan<- event
}

// Pauses between attempts. A builder that comes up slowly is found soon; one that never
// does costs little.
const (
	firstPause = 500 * time.Millisecond
	maxPause   = 10 * time.Second
)

// run returns when the store answered, when the builder is of no use, or when ctx ends.
func (p *probe) run(ctx context.Context) {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = firstPause, maxPause
	for {
		err := p.attempt(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		final := errors.Is(err, nix.ErrUnusable)
		if !p.send(ctx, event{err: err, final: final}) || final {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pauses.NextBackOff()):
		}
	}
}

// send tells the reconciler, and reports false when nobody wants to know any more.
func (p *probe) send(ctx context.Context, e event) bool {
	e.m = p.m
	select {
	case p.events <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

// attempt finds the builder on the tailnet, waits for ssh_config to have it and opens its
// store, once.
func (p *probe) attempt(ctx context.Context) error {
	select {
	case p.d.slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-p.d.slots }()

	host, machine, err := p.resolve(ctx)
	if err != nil {
		return err
	}
	written := make(chan error, 1)
	if !p.send(ctx, event{stage: reachable, host: host, written: written}) {
		return context.Cause(ctx)
	}
	select {
	case err = <-written:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	answer, err := p.open(ctx, host, machine)
	if err != nil {
		return err
	}
	answer.stage = checked
	p.send(ctx, answer)
	return nil
}

// resolve asks the tailnet for the builder's node and makes of it, and of what the builder
// offers, what stands in the files.
func (p *probe) resolve(ctx context.Context) (sshconf.Host, nix.Machine, error) {
	b := p.builder
	ctx, cancel := context.WithTimeoutCause(ctx, p.d.cfg.PeerTimeout, fmt.Errorf("the tailnet did not answer within %v", p.d.cfg.PeerTimeout))
	defer cancel()
	peer, err := p.d.cfg.Peer(ctx, b.Node.ID)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return sshconf.Host{}, nix.Machine{}, fmt.Errorf("ask the tailnet for node %s: %w", b.Node.Name, err)
	}
	keys := nix.HostKeys(peer.HostKeys)
	if len(keys) == 0 {
		return sshconf.Host{}, nix.Machine{}, fmt.Errorf(
			"the tailnet publishes no SSH host key of node %s: was its tailscale brought up with --ssh?", b.Node.Name)
	}
	// As ssh compares names.
	name := strings.ToLower(b.Name)
	host := sshconf.Host{Name: name, Addr: peer.Addr, Keys: keys}
	if !peer.Addr.IsValid() {
		host.Addr = b.Node.Addr
	}
	if b.Offer == nil {
		return sshconf.Host{}, nix.Machine{}, fmt.Errorf("%w: it offers nothing", nix.ErrUnusable)
	}
	machine, err := p.d.machine(b, host)
	if err != nil {
		return sshconf.Host{}, nix.Machine{}, fmt.Errorf("%w: %w", nix.ErrUnusable, err)
	}
	if _, err := sshconf.KnownHosts([]sshconf.Host{host}); err != nil {
		// One that can't be written must not keep the others out of the file.
		return sshconf.Host{}, nix.Machine{}, fmt.Errorf("%w: %w", nix.ErrUnusable, err)
	}
	return host, machine, nil
}

// machine makes of what a builder offers what stands in the machines file.
func (d *Dispatcher) machine(b coordinator.Builder, host sshconf.Host) (nix.Machine, error) {
	m := nix.Machine{
		Name:         host.Name,
		StoreProgram: b.Offer.StoreProgram,
		Systems:      b.Offer.Systems,
		MaxJobs:      d.maxJobs(b.Offer),
		SpeedFactor:  d.speedFactor(b.Offer),
		Features:     b.Offer.Features,
		HostKey:      host.Keys[0],
	}
	return m, m.Validate()
}

func (d *Dispatcher) maxJobs(o *coordinator.Offer) int {
	return nix.MaxJobs(setting(o.MaxJobs, d.cfg.MaxJobs), o.Cores, o.MemoryBytes)
}

func (d *Dispatcher) speedFactor(o *coordinator.Offer) int {
	return max(1, setting(o.SpeedFactor, d.cfg.SpeedFactor))
}

// setting is the builder's own, or without one the coordinator's.
func setting(own *int, ours int) int {
	if own != nil {
		return *own
	}
	return ours
}

// check opens the builder's store in one way, within limit.
func (p *probe) check(ctx context.Context, m nix.Machine, limit time.Duration) (nix.Store, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("its store did not answer within %v", limit))
	defer cancel()
	store, err := p.d.cfg.Check(ctx, m)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return store, err
}
