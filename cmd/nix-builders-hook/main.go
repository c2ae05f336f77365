// Nix-builders-hook is what a cluster's Nix calls for each build: the commands build-hook and
// dial-store of nix-builders, which are the same there. It has nothing else to load, and so
// starts in a third of the time. It is used where it lies beside nix-builders.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/called"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/hook"
)

// Exit codes, those of nix-builders.
const (
	exitFailed    = 1
	exitUsage     = 2
	exitCancelled = 130
)

func main() { os.Exit(run(os.Args)) }

func run(argv []string) int {
	if len(argv) < 2 {
		fmt.Fprintln(os.Stderr, "nix-builders-hook: want build-hook or dial-store, and what nix-builders wants of them; Nix starts this")
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	name, args := argv[1], argv[2:]
	var exit hook.Exit
	var err error
	switch name {
	case "build-hook":
		exit, err = called.BuildHook(ctx, args, os.Environ())
	case "dial-store":
		err = called.DialStore(ctx, args, os.Stdin, os.Stdout, nil)
		if errors.Is(err, called.ErrTailscaled) {
			err = whole(argv)
		}
	default:
		err = fmt.Errorf("%w build-hook or dial-store; nix-builders has the other commands", called.ErrUsage)
	}
	switch {
	case err == nil:
		return called.End(exit)
	case ctx.Err() != nil && (errors.Is(err, context.Cause(ctx)) || errors.Is(err, context.Canceled)):
		fmt.Fprintf(os.Stderr, "nix-builders %s: cancelled\n", name)
		return exitCancelled
	}
	fmt.Fprintf(os.Stderr, "nix-builders %s: %v\n", name, err)
	if errors.Is(err, called.ErrUsage) {
		return exitUsage
	}
	return exitFailed
}

// whole goes on as the nix-builders that lies beside this program. It returns only if that
// can't be.
func whole(argv []string) error {
	program, err := called.Beside("nix-builders")
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: run %s, which can: %w", called.ErrTailscaled, program, syscall.Exec(program, argv, os.Environ()))
}
