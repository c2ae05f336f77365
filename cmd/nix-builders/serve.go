package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	contract "github.com/Misaka13514/setup-distributed-nix-builds"
	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/httpapi"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/journal"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/proc"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/rundir"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/tailnet"
)

var serveCommand = command{
	name:    "serve",
	args:    "[--lifeline]",
	summary: "serve the coordinator's API (started by supervise)",
	detail: `The server itself, on a host that has joined the tailnet already. It takes up the
cluster where its journal says, and ends in order on SIGINT and SIGTERM: builders are
told to leave, Nix's and SSH's files are restored.

  --lifeline   also end when standard input does`,
	run: func(ctx context.Context, a *app, args []string) error {
		var lifeline bool
		args, err := a.flags("serve", args, func(fs *flag.FlagSet) { fs.BoolVar(&lifeline, "lifeline", false, "") })
		if err != nil {
			return err
		}
		if len(args) > 0 {
			return usagef("serve takes no argument %q", clip(args[0]))
		}
		if err := a.set.require("CLUSTER", "BUILDERS"); err != nil {
			return &usageError{err}
		}
		if lifeline {
			var cancel context.CancelFunc
			ctx, cancel = context.WithCancel(ctx)
			defer cancel()
			go func() {
				_, _ = io.Copy(io.Discard, a.stdin) // ends when the supervisor does
				cancel()
			}()
		}
		pid := os.Getpid()
		if n, err := strconv.Atoi(os.Getenv(supervisorVar)); err == nil {
			pid = n
		}
		supervisor, err := proc.Of(pid)
		if err != nil {
			return fmt.Errorf("find the supervisor: %w", err)
		}
		d, err := rundir.New(a.set.Files.StateDir, a.set.Cluster.Cluster, rundir.Coordinator)
		if err != nil {
			return err
		}
		return a.serve(ctx, d, supervisor, func() {})
	},
}

const (
	// lastStop is what builders get to leave when the server is told to end.
	lastStop = 4 * time.Second
	// lastWords is what is left after that for open requests and webhooks.
	lastWords = time.Second
)

// serve runs the cluster, its API and what keeps Nix's files true, until ctx ends; then
// it stops the cluster and ends them, in at most 7 s. listening is called once callers
// are answered.
func (a *app) serve(ctx context.Context, d *rundir.Dir, supervisor proc.ID, listening func()) error {
	client := a.set.client()
	self, err := client.Self(ctx)
	if err != nil {
		return err
	}
	if err := a.placeDialing(d, self.Userspace); err != nil {
		return err
	}
	pool, keepStores, err := a.storePool(d, client, self.Userspace)
	if err != nil {
		return err
	}
	var cluster *coordinator.Cluster // it is there before a hook comes
	view := func() coordinator.View { return cluster.View() }
	var builds builds
	sized := func(path string, bytes int64) { builds.Sized(path, bytes) } // after a build, by a scheduler
	paths, err := a.pathIndex(d, sized)
	if err != nil {
		return err
	}
	builds, err = a.scheduler(d, client, view, built(paths))
	if err != nil {
		return err
	}
	defer builds.close()
	files, err := a.dispatcher(a.set.Cluster.Cluster, d, client, self.Userspace, a.directTo(d, pool), builds.Scheduler)
	if err != nil {
		return err
	}
	state, err := journal.Open(d.JournalPath(), a.set.Cluster.Cluster)
	if err != nil {
		return err
	}
	cluster, err = coordinator.New(coordinator.Config{
		ID:            a.set.Cluster.Cluster,
		Builders:      a.set.Coordinator.Builders,
		Label:         tailnet.SanitizeHostname,
		Quorum:        a.set.Coordinator.MinBuilders.total,
		SystemQuorum:  a.set.Coordinator.MinBuilders.systems,
		KeepStrained:  !a.set.Coordinator.Cordon,
		Lease:         time.Duration(a.set.Cluster.Lease),
		GatherTimeout: time.Duration(a.set.Coordinator.GatherTimeout),
		Log:           a.log,
		Journal:       state,
		Dispatch:      files,
	})
	if err != nil {
		return err
	}
	hooks, err := a.webhooks()
	if err != nil {
		return err
	}
	lease := time.Duration(a.set.Cluster.Lease)
	ln, err := client.Listen(ctx, tailnet.ListenConfig{
		Port: int(a.set.Cluster.Port), ControlSocket: d.Path("control.sock"), GID: jobGroup(),
		Silence: lease,
	})
	if err != nil {
		return err
	}
	server, err := httpapi.New(httpapi.Config{
		Cluster:        cluster,
		WhoIs:          whoIs(client),
		Paths:          pathPage(paths, view),
		PathKey:        pathKey(paths),
		Collectors:     collectors(hooks, builds.Scheduler),
		BuilderTag:     a.set.Cluster.BuilderTag,
		CoordinatorTag: a.set.Cluster.CoordinatorTag,
		Hosts:          ln.Hosts,
		Contract:       contract.OpenAPI,
		Log:            a.log,
		Limits: httpapi.Limits{
			Close: lastWords,
			Idle:  lease * 2 / 3,                // after a poll, that makes a lease
			Alive: min(lease/3, 15*time.Second), // a reader can tell silence as a builder can
		},
	})
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	if err := d.SaveServer(rundir.Server{
		Cluster: a.set.Cluster.Cluster, API: ln.OwnBase + httpapi.Base,
		Socket: d.Path("control.sock"), Supervisor: supervisor,
	}); err != nil {
		return errors.Join(err, ln.Close())
	}

	listeners := ln.Tailnet
	for _, own := range ln.Own {
		listeners = append(listeners, httpapi.Local(own))
	}

	// The parts live until the cluster is stopped, which is after ctx has ended, and all
	// of them end when one can't go on.
	parts, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	running, parts := errgroup.WithContext(parts)
	running.Go(func() error { return server.Serve(parts, listeners...) })
	running.Go(func() error { return cluster.Run(parts) })
	running.Go(func() error { return files.Run(parts, cluster) })
	running.Go(func() error { return keepStores(parts) })
	running.Go(func() error { return builds.run(parts) })
	if paths != nil {
		running.Go(func() error { paths.Run(parts); return nil })
	}
	if hooks != nil {
		events := cluster.Follow(-1, 256)
		running.Go(func() error {
			// A receiver that is gone must not end the cluster.
			if err := hooks.Run(parts, events); err != nil {
				a.log.Warn("webhooks ended", "error", err)
			}
			return nil
		})
	}
	running.Go(func() error {
		defer end()
		select {
		case <-ctx.Done():
		case <-parts.Done():
			return nil // a part failed; the supervisor starts all of it again
		}
		a.log.Info("told to end; releasing the builders")
		last, cancel := context.WithTimeout(parts, lastStop+lastWords)
		defer cancel()
		_, err := cluster.Stop(last, coordinator.StopRequest{By: "the end of the coordinator", Wait: lastStop})
		if errors.Is(err, coordinator.ErrRemain) {
			a.log.Warn("ended with builders that did not leave", "error", err)
			err = nil
		}
		return err
	})
	a.log.Info("serving", "cluster", a.set.Cluster.Cluster, "api", ln.Base+httpapi.Base)
	listening()
	return running.Wait()
}

// whoIs adapts the tailnet's answer to what the API asks.
func whoIs(client *tailnet.Client) func(context.Context, string) (httpapi.Caller, error) {
	return func(ctx context.Context, addr string) (httpapi.Caller, error) {
		c, err := client.WhoIs(ctx, addr)
		if err != nil {
			return httpapi.Caller{}, err
		}
		return httpapi.Caller{
			ID: c.ID, Name: c.Name, FQDN: c.FQDN, User: c.User, Addr: c.Addr, Tags: c.Tags, Caps: c.Caps, Self: c.Self,
		}, nil
	}
}

// jobGroup is the group of the job's user, who called us through sudo, or our own.
func jobGroup() int {
	if gid, err := strconv.Atoi(os.Getenv("SUDO_GID")); err == nil {
		return gid
	}
	return os.Getgid()
}
