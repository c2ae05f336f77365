package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/proc"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/rundir"
)

var coordinatorCommand = command{
	name:    "coordinator",
	args:    "[--foreground]",
	summary: "gather the builders and make Nix use them",
	detail: `Joins the tailnet (or takes the tailscaled that is already logged in), serves the API
on the tailnet address, waits for the builders, opens the Nix store of each, and sets
Nix up to build on them. Then it returns; the server goes on until nix-builders leave.

Needs NIX_BUILDERS_HOSTNAME, NIX_BUILDERS_BUILDERS, an auth key or NIX_BUILDERS_CLIENT_ID
where nobody is logged in or joining yet, and outside GitHub NIX_BUILDERS_CLUSTER. An
ordinary user needs sudo.

Exit code 0 when enough builders are ready; 1 with a report when they are not in time;
130 when it was cancelled.

  --foreground   serve in this process, until it is told to end`,
	run: func(ctx context.Context, a *app, args []string) error {
		var foreground bool
		given := args
		args, err := a.flags("coordinator", args, func(fs *flag.FlagSet) { fs.BoolVar(&foreground, "foreground", false, "") })
		if err != nil {
			return err
		}
		if len(args) > 0 {
			return usagef("coordinator takes no argument %q", clip(args[0]))
		}
		if err := a.set.require("CLUSTER", "HOSTNAME", "BUILDERS"); err != nil {
			return &usageError{err}
		}
		if err := a.checkMember(rundir.Coordinator); err != nil {
			return err
		}
		front := a.needsFront(rundir.Coordinator)
		if err := a.takeSecrets(ctx, need{front: front, login: !a.joined(rundir.Coordinator), webhook: true}); err != nil {
			return err
		}
		if front {
			return a.front(ctx, append([]string{"coordinator"}, given...)...)
		}
		return a.coordinate(ctx, foreground)
	},
}

func (a *app) coordinate(ctx context.Context, foreground bool) error {
	d := rundir.At(a.set.Files.StateDir, a.set.Cluster.Cluster, rundir.Coordinator)
	if s, err := d.Server(); err == nil && s.Supervisor.Alive() {
		return fmt.Errorf("cluster %s already has its coordinator here (pid %d); nix-builders leave ends it", s.Cluster, s.Supervisor.PID)
	}
	d, err := a.claim(rundir.Coordinator)
	if err != nil {
		return err
	}
	if err := a.keepWebhookSecret(d); err != nil {
		return errors.Join(err, a.endMembership(d))
	}
	if _, err := a.become(ctx, d, rundir.Coordinator); err != nil {
		return errors.Join(err, a.endMembership(d))
	}
	if foreground {
		// It ends with this process, and with it all that it needed.
		err := a.coordinateHere(ctx, d)
		return errors.Join(err, removeLink(a.stopLink()), a.endMembership(d))
	}
	if err := a.serveDetached(ctx, d); err != nil {
		// Nobody is left who could use the tailnet or the directory.
		return errors.Join(err, a.endMembership(d))
	}
	return a.gather(ctx, d)
}

// startBound is what the server may take to listen.
const startBound = 20 * time.Second

// serveDetached starts the server and returns when it listens.
func (a *app) serveDetached(ctx context.Context, d *rundir.Dir) error {
	supervisor, err := detach(d)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startBound)
	defer cancel()
	for {
		if s, err := d.Server(); err == nil && s.Supervisor == supervisor {
			return nil
		}
		if supervisor.Alive() && ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
			continue
		}
		err := errors.New("the server ended at once")
		if ctx.Err() != nil {
			err = fmt.Errorf("the server did not start to listen: %w", context.Cause(ctx))
		}
		fmt.Fprintf(a.stderr, "%s:\n%s\n", d.LogPath(), tail(d.LogPath(), 20))
		return errors.Join(fmt.Errorf("start the server: %w", err), endSupervisor(supervisor))
	}
}

// errServerEnded ends the gathering that the server was for.
var errServerEnded = errors.New("the server ended")

// coordinateHere gathers the builders and serves in this process, until ctx ends or
// gathering fails.
func (a *app) coordinateHere(ctx context.Context, d *rundir.Dir) error {
	self, err := proc.Of(os.Getpid())
	if err != nil {
		return fmt.Errorf("find this process: %w", err)
	}
	serving, endServing := context.WithCancel(ctx)
	defer endServing()
	gathering, endGathering := context.WithCancelCause(ctx)
	defer endGathering(nil)
	listening, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- a.serve(serving, d, self, func() { close(listening) })
		endGathering(errServerEnded)
	}()
	select {
	case <-listening:
	case err := <-ended:
		return err
	}
	err = a.gather(gathering, d)
	if err == nil {
		fmt.Fprintln(a.stdout, "Serving until this process is told to end.")
	} else {
		endServing()
	}
	return errors.Join(err, <-ended)
}

// stopLink is where stop-nix-builders is installed.
func (a *app) stopLink() string { return filepath.Join(a.set.Files.BinDir, "stop-nix-builders") }

// installStop puts stop-nix-builders on PATH.
func (a *app) installStop() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	return placeLink(self, a.stopLink())
}
