package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/dispatch"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/rundir"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/tailnet"
)

// dispatcher keeps Nix's and root's SSH files true to the cluster with this id. Userspace
// says that this host has no route to its peers: ssh then goes through us. How is the way to
// builders without ssh; nil if there is none. Without a scheduler Nix dispatches builds by
// itself.
func (a *app) dispatcher(id string, d *rundir.Dir, client *tailnet.Client, userspace bool,
	how *dispatch.Direct, builds *scheduler.Scheduler,
) (*dispatch.Dispatcher, error) {
	programs := nix.Programs{Path: os.Getenv("PATH")}
	daemon := nix.Daemon{Programs: programs, Log: a.log}
	cfg := dispatch.Config{
		ID: id,
		Files: dispatch.Files{
			Machines:   a.set.Files.MachinesFile,
			NixConf:    a.set.Files.NixConf,
			SSHConfig:  a.set.Files.SSHConfig,
			KnownHosts: d.Path("known_hosts"),
			Hosts:      a.set.Files.HostsFile,
			UserConf:   a.set.Files.UserNixConf,
		},
		Peer: func(ctx context.Context, node string) (dispatch.Peer, error) {
			p, err := client.Peer(ctx, node)
			return dispatch.Peer{Addr: p.Addr, HostKeys: p.HostKeys}, err
		},
		Check:       programs.CheckStore,
		Restart:     daemon.Restart,
		Links:       nix.Links,
		Direct:      how,
		Lease:       time.Duration(a.set.Cluster.Lease),
		MaxJobs:     a.set.Cluster.MaxJobs,
		SpeedFactor: a.set.Cluster.SpeedFactor,
		Log:         a.log,
	}
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	if builds != nil {
		called, err := calledProgram()
		if err != nil {
			return nil, err
		}
		cfg.Scheduler, cfg.Hook = builds, []string{called, buildHookCommand.name, hookSocket(d), a.set.Files.MachinesFile}
	}
	if userspace {
		cfg.Files.Hosts = "" // nobody here could use their addresses
		// The Nix daemon's environment has none of our settings.
		cfg.Proxy = []string{program, "dial", "%h", "%p"}
		if socket := a.set.Tailnet.TailscaleSocket; socket != "" {
			cfg.Proxy = append([]string{"/usr/bin/env", prefix + "_TAILSCALE_SOCKET=" + socket}, cfg.Proxy...)
		}
	}
	return dispatch.New(cfg)
}

// restoreFiles undoes what a server that was killed left in Nix's and SSH's files.
func (a *app) restoreFiles(d *rundir.Dir) error {
	server, err := d.Server()
	if errors.Is(err, rundir.ErrNone) {
		return nil
	}
	if err != nil {
		return err
	}
	files, err := a.dispatcher(server.Cluster, d, a.set.client(), false, nil, nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), restoreBound)
	defer cancel()
	return errors.Join(files.Close(ctx), files.Restore(ctx))
}

// restoreBound is what restoring may take; it may restart the Nix daemon.
const restoreBound = 30 * time.Second
