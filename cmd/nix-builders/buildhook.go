package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/hook"
)

var buildHookCommand = command{
	name:    "build-hook",
	args:    "[SOCKET [MACHINES]] VERBOSITY",
	summary: "be Nix' build hook: send builds where the scheduler says",
	detail: `What Nix starts for each build when its setting build-hook is
  /path/to/nix-builders build-hook SOCKET MACHINES
Nix adds the verbosity. SOCKET is the scheduler's; without it that of the variable
NIX_BUILDERS_HOOK_SOCKET, the only one that counts here. Where there is no scheduler, and where
the setting builders means others than the scheduler's, it is Nix' own build hook.

MACHINES is the machines file of the scheduler's machines. With it, what one of them can do
waits for a scheduler that has just died or hangs, for a minute at most.`,
	bare: true,
	run: func(ctx context.Context, a *app, args []string) error {
		c := hook.Config{
			Socket: os.Getenv("NIX_BUILDERS_HOOK_SOCKET"), Env: os.Environ(),
			Stdin: os.Stdin, Stderr: os.Stderr,
			Log: os.NewFile(4, "builder's output"), LogRead: os.NewFile(5, "builder's output, to be read"),
		}
		switch len(args) {
		case 1:
			c.Verbosity = args[0]
		case 2:
			c.Socket, c.Verbosity = args[0], args[1]
		case 3:
			c.Socket, c.Machines, c.Verbosity = args[0], args[1], args[2]
		default:
			return usagef("want [SOCKET [MACHINES]] VERBOSITY; Nix starts this")
		}
		var err error
		if c.Nix, err = hook.FindNix(os.Getppid()); err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)
		defer stop()
		exit, err := hook.Run(ctx, c)
		switch {
		case err != nil:
			return err
		case exit.Signal != 0:
			signal.Reset()
			// Should it not end us, the code is a shell's.
			_ = syscall.Kill(os.Getpid(), exit.Signal)
			return &exitError{128 + int(exit.Signal)}
		case exit.Code != exitOK:
			return &exitError{exit.Code}
		}
		return nil
	},
}
