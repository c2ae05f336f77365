package dispatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/sshconf"
)

// Direct is the way to builders' stores without ssh.
type Direct struct {
	// Program and Dir are those of [nix.Direct].
	Program, Dir string
	// Only says that a builder that can't be reached so is not reached at all. Else Nix
	// reaches it over SSH.
	Only bool
	// Timeout bounds one check. If zero, 10 s.
	Timeout time.Duration
	// Keep is told at which addresses Nix may reach stores so, whenever that may have
	// changed. If nil, nobody is.
	Keep func(addrs []string)
}

// errNoDirect says that a builder serves its store to ssh alone.
var errNoDirect = errors.New("its agent does not serve its store: is the port taken there?")

// direct gives the direct way to a builder.
func (p *probe) direct(host sshconf.Host) (nix.Direct, error) {
	port := p.builder.Offer.StorePort
	if port == nil {
		return nix.Direct{}, errNoDirect
	}
	return nix.Direct{
		Addr:    netip.AddrPortFrom(host.Addr, uint16(*port)).String(), // bounded when it checked in
		Program: p.d.cfg.Direct.Program, Dir: p.d.cfg.Direct.Dir,
	}, nil
}

// open opens the builder's store, directly if that works, and returns the machine by which
// it did, the store and what is to be said of the way, in an event.
func (p *probe) open(ctx context.Context, host sshconf.Host, m nix.Machine) (event, error) {
	how := p.d.cfg.Direct
	if how == nil {
		store, err := p.check(ctx, m, p.d.cfg.CheckTimeout)
		return event{machine: m, store: store}, err
	}
	byDirect := m
	way, why := p.direct(host)
	if why == nil {
		byDirect.Direct = way
		why = byDirect.Validate()
	}
	switch {
	case why == nil:
		store, err := p.check(ctx, byDirect, cmp.Or(how.Timeout, 10*time.Second))
		if err == nil || how.Only || ctx.Err() != nil {
			return event{machine: byDirect, store: store}, err
		}
		why = err
	case how.Only:
		return event{}, fmt.Errorf("%w: %w", nix.ErrUnusable, why)
	}
	store, err := p.check(ctx, m, p.d.cfg.CheckTimeout)
	if err == nil {
		p.d.log.Warn("a builder is reached over SSH", "builder", p.builder.Name, "why", why)
	}
	return event{machine: m, store: store, way: fmt.Sprintf("over SSH alone: %v", why)}, err
}

// keep tells of the stores that Nix may reach directly.
func (r *reconciler) keep() {
	how := r.d.cfg.Direct
	if how == nil || how.Keep == nil {
		return
	}
	var addrs []string
	for _, m := range r.ordered() {
		if m.stage >= checked && !m.rests && m.machine.Direct.Addr != "" {
			addrs = append(addrs, m.machine.Direct.Addr)
		}
	}
	how.Keep(addrs)
}
