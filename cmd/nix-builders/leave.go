package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/proc"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/rundir"
)

var leaveCommand = command{
	name:    "leave",
	summary: "end what join, coordinator or builder left on this host",
	detail: `What a job's last step runs, always. Stops the cluster if it still runs, ends the
server, prints its log, ends a builder or a joining that still runs, restores Nix's and
SSH's files, leaves the tailnet, and removes the cluster's directory. Does nothing where
there is nothing to end.

In a workflow on GitHub it writes the job summary, or what a stop's summary could not
tell yet.

With NIX_BUILDERS_CLUSTER (or on GitHub) only that cluster's, else every cluster's.`,
	run: func(ctx context.Context, a *app, args []string) error {
		if len(args) > 0 {
			return usagef("leave takes no arguments")
		}
		members, err := a.members()
		if len(members) == 0 && !errors.Is(err, fs.ErrPermission) {
			return err
		}
		if a.needsFront(rundir.Builder) {
			return a.front(ctx, "leave")
		}
		problems := []error{err}
		for _, m := range members {
			problems = append(problems, a.leave(m.dir, m.role))
		}
		return errors.Join(problems...)
	},
}

// A member is what a cluster has on this host.
type member struct {
	dir  *rundir.Dir
	role string
}

// members are those that the settings mean.
func (a *app) members() (members []member, err error) {
	for _, role := range []string{rundir.Coordinator, rundir.Builder} {
		dirs, problem := rundir.Find(a.set.Files.StateDir, role)
		err = errors.Join(err, problem)
		for _, d := range dirs {
			if id := a.set.Cluster.Cluster; id == "" || d.Path("") == rundir.At(a.set.Files.StateDir, id, role).Path("") {
				members = append(members, member{d, role})
			}
		}
	}
	return members, err
}

// leave does all it can, whatever fails; a directory stays when something did, so that
// leaving can be tried again.
func (a *app) leave(d *rundir.Dir, role string) error {
	if role == rundir.Coordinator {
		a.summarizeEnd(d)
	}
	problems := []error{a.endRole(d, role)}
	if role == rundir.Coordinator {
		problems = append(problems, a.endServer(d), a.restoreFiles(d), removeLink(a.stopLink()))
	}
	problems = append(problems, a.restoreNix(d), a.leaveMembership(d), removeLinks(d))
	if err := errors.Join(problems...); err != nil {
		return err
	}
	return d.Remove()
}

// endRole ends the builder, or a coordinator's step, that still runs: its front was killed,
// or gave up on it.
func (a *app) endRole(d *rundir.Dir, role string) error {
	var process proc.ID
	switch err := d.Load(processFile, &process); {
	case errors.Is(err, rundir.ErrNone):
		return nil
	case err != nil:
		return err
	}
	return endProcess(role, process, shutdownBound+shutdownBound/2)
}

// endServer ends the detached server the orderly way, and prints its log.
func (a *app) endServer(d *rundir.Dir) error {
	server, err := d.Server()
	if errors.Is(err, rundir.ErrNone) {
		return nil
	}
	if err != nil {
		return err
	}
	err = endSupervisor(server.Supervisor)
	if log := tail(d.LogPath(), 200); log != "" {
		defer a.group("Log of the coordinator's server")()
		fmt.Fprintf(a.stdout, "Log of the coordinator's server, %s:\n%s\n", d.LogPath(), log)
	}
	return err
}
