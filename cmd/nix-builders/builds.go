package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/direct"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/rundir"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/tailnet"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/unixsock"
)

// builds are the scheduler of a coordinator and the socket where Nix' hooks meet it. Without
// a scheduler Nix dispatches builds by itself.
type builds struct {
	*scheduler.Scheduler
	hooks net.Listener
}

func hookSocket(d *rundir.Dir) string { return d.Path("hook.sock") }

// scheduler makes the scheduler, which asks view how builders are reached, and its socket.
// It tells built of each build that ended well.
func (a *app) scheduler(d *rundir.Dir, client *tailnet.Client, view func() coordinator.View, built func(scheduler.Built)) (b builds, err error) {
	if !a.set.Coordinator.BuildHook {
		return b, nil
	}
	lease := time.Duration(a.set.Cluster.Lease)
	b.Scheduler, err = scheduler.New(scheduler.Config{
		Builders: "@" + a.set.Files.MachinesFile,
		// A builder that was lost may be back by then, or has ended.
		Patience: 2 * lease,
		Condition: func(ctx context.Context, machine string, since time.Time) (scheduler.Condition, error) {
			addr, err := storeAddress(view(), machine)
			if err != nil {
				return scheduler.Condition{}, err
			}
			return direct.Condition(ctx, client.Dialer(lease), addr, since)
		},
		Built: built,
		Log:   a.log,
	})
	if err != nil {
		return b, err
	}
	if b.hooks, err = unixsock.Listen(hookSocket(d), -1); err != nil {
		return b, fmt.Errorf("listen for build hooks: %w", err)
	}
	return b, nil
}

// run serves hooks until ctx ends.
func (b builds) run(ctx context.Context) error {
	if b.Scheduler == nil {
		return nil
	}
	return b.Serve(ctx, b.hooks)
}

// close undoes what scheduler did, if run was not called.
func (b builds) close() {
	if b.hooks != nil {
		b.hooks.Close()
	}
}

// storeAddress is where the agent of a machine answers.
func storeAddress(v coordinator.View, machine string) (string, error) {
	for _, b := range v.Builders {
		switch {
		case strings.ToLower(b.Name) != machine:
		case b.Offer == nil || b.Offer.StorePort == nil:
			return "", errors.New("its agent does not serve its store, and so can't be asked")
		default:
			return netip.AddrPortFrom(b.Node.Addr, uint16(*b.Offer.StorePort)).String(), nil
		}
	}
	return "", fmt.Errorf("no builder of this cluster is called %s", machine)
}
