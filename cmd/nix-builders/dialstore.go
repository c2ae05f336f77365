package main

import (
	"context"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/called"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/direct"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
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
who look at the list of processes. Ends when either side closes.

The program nix-builders-hook does the same, and starts faster.`,
	bare: true,
	run: func(ctx context.Context, a *app, args []string) error {
		tailscaled := func(socket string, quiet time.Duration) direct.Dial { return tailnet.New(socket).Dialer(quiet) }
		return misused(called.DialStore(ctx, args, a.stdin, a.stdout, tailscaled))
	},
}
