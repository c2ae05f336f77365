package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/direct"
)

var serveStoreCommand = command{
	name:    "serve-store",
	args:    "--listen ADDRESS:PORT [--oom-kills N] [--disk-full] -- PROGRAM [ARGUMENTS]",
	summary: "serve a store as a builder's agent does, to this host alone (for tests)",
	detail: `Runs PROGRAM, in this environment, for each connection that dial-store makes, with the
connection as its standard input and output. There is no tailnet that could say who calls,
so it listens on the loopback only. Prints the address when it listens.

  --listen ADDRESS:PORT   an address of the loopback; port 0 picks a free one
  --oom-kills N           say that N processes were ended for want of memory, each time
                          that somebody asks
  --disk-full             say that the disk is full`,
	bare: true,
	run: func(ctx context.Context, a *app, args []string) error {
		var listen string
		var kills int64
		var full bool
		args, err := a.flags("serve-store", args, func(fs *flag.FlagSet) {
			fs.StringVar(&listen, "listen", "", "")
			fs.Int64Var(&kills, "oom-kills", 0, "")
			fs.BoolVar(&full, "disk-full", false, "")
		})
		if err != nil {
			return err
		}
		at, err := netip.ParseAddrPort(listen)
		if err != nil || !at.Addr().IsLoopback() {
			return usagef("--listen: want an address of the loopback, such as 127.0.0.1:0")
		}
		if len(args) == 0 {
			return usagef("want a program that serves a store, such as nix-daemon --stdio")
		}
		program, err := exec.LookPath(args[0])
		if err == nil {
			program, err = filepath.Abs(program)
		}
		if err != nil {
			return err
		}
		const tag = "tag:this-host"
		var counted atomic.Int64
		cfg := direct.Config{
			WhoIs: func(context.Context, string) (direct.Caller, error) {
				return direct.Caller{ID: "this host", Name: "localhost", Addr: at.Addr(), Tags: []string{tag}}, nil
			},
			CoordinatorTag: tag,
			Command:        append([]string{program}, args[1:]...),
			Env:            os.Environ,
			OOMKills:       func() (int64, error) { return counted.Add(kills), nil },
			Log:            a.log,
		}
		if full {
			cfg.StoreSpace = func(context.Context) (total, free uint64, err error) { return 1, 0, nil }
		}
		server, err := direct.New(cfg)
		if err != nil {
			return err
		}
		ln, err := new(net.ListenConfig).Listen(ctx, "tcp", listen)
		if err != nil {
			return err
		}
		server.Claim(at.Addr())
		fmt.Fprintln(a.stdout, ln.Addr())
		return server.Serve(ctx, ln)
	},
}
