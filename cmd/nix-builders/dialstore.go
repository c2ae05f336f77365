package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/direct"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/rundir"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/tailnet"
)

var dialStoreCommand = command{
	name:    nix.DialStore,
	args:    "ADDRESS:PORT DIR [NAME] [--stdio]",
	summary: "connect standard input and output to a builder's store (started by Nix)",
	detail: `What Nix runs in place of ssh, with a store such as
ssh-ng://localhost?remote-program=/opt/nix-builders%20dial-store%20100.64.0.7:8379%20-

DIR is the directory of the coordinator that has claimed the builder, where connections are
kept ready; "." is the one that this program was called in, "-" is none. NAME is for those
who look at the list of processes. Ends when either side closes.`,
	bare: true,
	run: func(ctx context.Context, a *app, args []string) error {
		if n := len(args); n > 0 && args[n-1] == "--stdio" { // which Nix appends
			args = args[:n-1]
		}
		if len(args) != 2 && len(args) != 3 {
			return usagef("want ADDRESS:PORT DIR [NAME]")
		}
		conn, err := openStore(ctx, args[0], args[1])
		if err != nil {
			return err
		}
		defer conn.Close()
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		defer stop()
		if err := direct.Carry(conn, a.stdin, a.stdout); err != nil && ctx.Err() == nil {
			return err
		}
		return context.Cause(ctx)
	},
}

const (
	// dialFile in the coordinator's directory says how to connect to builders.
	dialFile = "dial.json"
	// storesSocket there is where connections are handed out.
	storesSocket = "stores.sock"
	// askStores bounds the wait for one of them.
	askStores = 100 * time.Millisecond
)

// dialing is how a process of the coordinator's host connects to builders, which is told
// none of our settings.
type dialing struct {
	LeaseSeconds float64 `json:"lease_seconds"`
	// Userspace says that the host has no route to its peers, and tailscaled connects.
	Userspace bool   `json:"userspace,omitempty"`
	Socket    string `json:"socket,omitempty"` // of tailscaled; empty: the system's
}

// saveDialing tells those that the coordinator's Nix starts how to connect to builders.
func (a *app) saveDialing(d *rundir.Dir, userspace bool) error {
	return d.Save(dialFile, 0o644, dialing{
		LeaseSeconds: time.Duration(a.set.Cluster.Lease).Seconds(),
		Userspace:    userspace, Socket: a.set.Tailnet.TailscaleSocket,
	})
}

// openStore gives a connection to the store at addr: one that the coordinator has kept
// ready, or else a new one.
func openStore(ctx context.Context, addr, dir string) (net.Conn, error) {
	how := dialing{LeaseSeconds: coordinator.DefaultLease.Seconds()}
	if dir == "." {
		dir = filepath.Dir(os.Args[0])
	}
	if dir != "-" {
		b, err := os.ReadFile(filepath.Join(dir, dialFile))
		if err == nil {
			err = json.Unmarshal(b, &how)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // it may be too early or too late, which the builder tells
			return nil, fmt.Errorf("read how to connect to builders: %w", err)
		}
	}
	lease := time.Duration(how.LeaseSeconds * float64(time.Second))
	dial := tailnet.HostDialer(lease).DialContext
	switch {
	case how.Userspace:
		dial = tailnet.New(how.Socket).Dialer(lease)
	case dir != "-":
		// Without the coordinator's process there are none, and builds go on.
		if conn, err := direct.Ask(filepath.Join(dir, storesSocket), addr, askStores); err == nil && conn != nil {
			return conn, nil
		}
	}
	return direct.Connect(ctx, dial, addr)
}
