package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/rundir"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/tailnet"
)

var leaveCommand = command{
	name:    "leave",
	summary: "end what coordinator or builder left on this host",
	detail: `What a job's last step runs, always. Stops the cluster if it still runs, ends the
server, prints its log, restores Nix's and SSH's files, leaves the tailnet, and removes
the cluster's directory. Does nothing where there is nothing to end.

With NIX_BUILDERS_CLUSTER (or on GitHub) only that cluster's, else every cluster's.`,
	run: func(_ context.Context, a *app, args []string) error {
		if len(args) > 0 {
			return usagef("leave takes no arguments")
		}
		var problems []error
		for _, role := range []string{rundir.Coordinator, rundir.Builder} {
			dirs, err := rundir.Find(a.set.Files.StateDir, role)
			problems = append(problems, err)
			for _, d := range dirs {
				if id := a.set.Cluster.Cluster; id == "" || d.Path("") == rundir.At(a.set.Files.StateDir, id, role).Path("") {
					problems = append(problems, a.leave(d, role))
				}
			}
		}
		return errors.Join(problems...)
	},
}

// leave does all it can, whatever fails; a directory stays when something did, so that
// leaving can be tried again.
func (a *app) leave(d *rundir.Dir, role string) error {
	var problems []error
	if role == rundir.Coordinator {
		problems = append(problems, a.endServer(d), a.restoreFiles(d), removeLink(a.stopLink()))
	}
	var m tailnet.Membership
	switch err := d.Load(memberFile, &m); {
	case errors.Is(err, rundir.ErrNone):
	case err != nil:
		problems = append(problems, err)
	default:
		problems = append(problems, a.leaveTailnet(&m))
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	return d.Remove()
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
		fmt.Fprintf(a.stdout, "Log of the coordinator's server, %s:\n%s\n", d.LogPath(), log)
	}
	return err
}
