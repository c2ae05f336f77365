package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// do makes one thing go wrong and puts it right again: when it returns, the builder's host
// is there, its cable is in, and its agent runs.
func (w *world) do(ctx context.Context, f mishap) error {
	d := time.Duration(f.long * float64(w.lease))
	var b *lent
	var h *testbed.Host
	if f.host > 0 {
		b = w.lent[f.host-1]
		h = w.Host(b.host)
		w.awaitBuilding(ctx, b.name)
	}
	w.log("%v", f)
	switch f.kind {
	case killAgent:
		return w.again(ctx, b, killed, func() error { return b.p.Signal(syscall.SIGKILL) }, d)
	case cancelAgent:
		return w.again(ctx, b, cancelled, func() error { return b.p.Signal(syscall.SIGTERM) }, 0)
	case killHost, powerCut:
		if f.kind == powerCut {
			if err := h.Cut(ctx); err != nil {
				return err
			}
		}
		if err := h.Kill(ctx); err != nil {
			return err
		}
		<-b.p.Done()
		if err := pause(ctx, d); err != nil {
			return err
		}
		if err := h.Restart(ctx); err != nil {
			return err
		}
		return w.lend(ctx, b)
	case shortCut, longCut:
		return w.meanwhile(ctx, b, f, func() error { return h.Cut(ctx) }, func() error { return h.Heal(ctx) }, d)
	case shortFreeze, longFreeze:
		return w.meanwhile(ctx, b, f, func() error { return h.Freeze(ctx) }, func() error { return h.Thaw(ctx) }, d)
	case freezeAgent:
		const agent = "nix-builders builder"
		return w.meanwhile(ctx, b, f, func() error { return h.Freeze(ctx, agent) }, func() error { return h.Thaw(ctx, agent) }, d)
	case killDaemon:
		return h.Run(ctx, "pkill", "-KILL", "-x", "nix-daemon")
	case killTailscaled:
		// Its keys were in memory alone: the agent can't but end.
		return w.again(ctx, b, silent, func() error { return h.Run(ctx, "pkill", "-KILL", "-x", "tailscaled") }, 0)
	case releaseOne, drainOne:
		return w.release(ctx, b, f.kind == drainOne)
	case killServer:
		w.watch.serverKilled()
		return w.Host(w.Coordinator).Run(ctx, "pkill", "-KILL", "-f", "nix-builders serve")
	case freezeServer:
		const server = "nix-builders serve"
		co := w.Host(w.Coordinator)
		if err := co.Freeze(ctx, server); err != nil {
			return err
		}
		w.stalled(d)
		err := pause(ctx, d)
		if thawed := co.Thaw(context.WithoutCancel(ctx), server); err == nil {
			err = thawed
		}
		return err
	case cutControl:
		if err := w.Lab.CutControl(ctx); err != nil {
			return err
		}
		err := pause(ctx, d)
		if healed := w.Lab.HealControl(context.WithoutCancel(ctx)); err == nil {
			err = healed
		}
		return err
	}
	return fmt.Errorf("nobody knows how to do %v", f)
}

// How an agent may end.
const (
	killed    = -1  // by a signal
	silent    = 0   // because its coordinator was silent, or it was told to leave
	cancelled = 130 // by its job
)

// again ends the agent, starts it again a while later, and checks how it ended.
func (w *world) again(ctx context.Context, b *lent, want int, end func() error, d time.Duration) error {
	if err := end(); err != nil {
		return err
	}
	if err := w.ended(ctx, b, want); err != nil {
		return err
	}
	if err := pause(ctx, d); err != nil {
		return err
	}
	return w.lend(ctx, b)
}

// ended waits for the end of the agent.
func (w *world) ended(ctx context.Context, b *lent, want int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*w.lease+slack, fmt.Errorf("it does not end"))
	defer cancel()
	code, err := b.p.Wait(ctx)
	if want == killed && code < 0 && ctx.Err() == nil {
		return nil
	}
	if err != nil || code != want {
		return fmt.Errorf("%s ended with code %d, want %d (%v); it printed:\n%s", b.p, code, want, err, b.p.Output())
	}
	return nil
}

// meanwhile lets something be wrong for d. Longer than two leases an agent need not put up
// with that, and may end well.
func (w *world) meanwhile(ctx context.Context, b *lent, f mishap, begin, end func() error, d time.Duration) error {
	if err := begin(); err != nil {
		return err
	}
	err := pause(ctx, d)
	if ended := end(); err == nil {
		err = ended
	}
	if err != nil {
		return err
	}
	healed := time.Now()
	for {
		select {
		case <-b.p.Done():
			// It counts from a request that was sent before: a poll is a third of a lease long.
			if f.long < 1.5 {
				return fmt.Errorf("%s ended after %v; it printed:\n%s", b.p, f, b.p.Output())
			}
			if err := w.ended(ctx, b, silent); err != nil {
				return err
			}
			return w.lend(ctx, b)
		case <-time.After(50 * time.Millisecond):
		}
		if c, err := w.cluster(ctx); err == nil && w.backSince(c, b, healed) {
			return nil
		}
		if time.Since(healed) > 2*w.lease+slack {
			return fmt.Errorf("%v after %v is over, %s is not back; it printed:\n%s", time.Since(healed), f, b.name, b.p.Output())
		}
	}
}

// backSince reports whether a builder is ready and was heard since then.
func (w *world) backSince(c apiclient.Cluster, b *lent, then time.Time) bool {
	now, ok := builderOf(c, b.name)
	return ok && now.State == apiclient.BuilderStateReady && now.SilentSeconds != nil &&
		*now.SilentSeconds < time.Since(then).Seconds()
}

// release releases a builder for good, and lends its host again under another name: a
// builder that comes late.
func (w *world) release(ctx context.Context, b *lent, drain bool) error {
	argv := []string{"stop-nix-builders", "--wait", "30s", b.name}
	if drain {
		argv = []string{"stop-nix-builders", "--drain=60s", "--wait", "30s", b.name}
	}
	p, err := w.Start(ctx, w.Coordinator, testbed.Runner, argv...)
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeoutCause(ctx, 60*time.Second+slack, fmt.Errorf("it does not end"))
	defer cancel()
	if code, err := p.Wait(bounded); err != nil || code != 0 {
		return fmt.Errorf("%s ended with code %d, %v:\n%s", p, code, err, p.Output())
	}
	if !strings.Contains(p.Output(), "Released 1 of 1 builders") {
		return fmt.Errorf("%s says:\n%s", p, p.Output())
	}
	if err := w.ended(ctx, b, silent); err != nil {
		return err
	}
	if !strings.Contains(b.p.Output(), "told to leave") {
		return fmt.Errorf("%s was released and says:\n%s", b.p, b.p.Output())
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.spare) == 0 {
		return fmt.Errorf("no name is left for a late builder")
	}
	b.name, w.spare = w.spare[0], w.spare[1:]
	w.released++
	return w.lendLocked(ctx, b)
}

// lend starts the agent of a builder, and waits until somebody claims it.
func (w *world) lend(ctx context.Context, b *lent) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lendLocked(ctx, b)
}

func (w *world) lendLocked(ctx context.Context, b *lent) (err error) {
	b.p, err = w.StartBuilder(w.t.Context(), b.host, map[string]string{"NIX_BUILDERS_HOSTNAME": b.name})
	if err == nil {
		w.started = append(w.started, b.p)
	}
	return err
}

// pause waits for d.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// claimed reports whether the coordinator has taken this very process.
func claimed(p *fleet.Process) bool { return strings.Contains(p.Output(), "claimed by") }
