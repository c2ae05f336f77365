package main

import (
	"context"
	"os"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/called"
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
waits for a scheduler that has just died or hangs, for a minute at most.

The program nix-builders-hook does the same, and starts faster.`,
	bare: true,
	run: func(ctx context.Context, a *app, args []string) error {
		exit, err := called.BuildHook(ctx, args, os.Environ())
		if err != nil {
			return misused(err)
		}
		if code := called.End(exit); code != exitOK {
			return &exitError{code}
		}
		return nil
	},
}
