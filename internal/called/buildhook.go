package called

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/hook"
)

// ErrUsage is wrapped by errors about arguments that can't be.
var ErrUsage = errors.New("want")

// HookSocket is the variable that names the scheduler's socket where no argument does.
const HookSocket = "NIX_BUILDERS_HOOK_SOCKET"

// BuildHook is Nix's build hook, by the arguments [SOCKET [MACHINES]] VERBOSITY: those that
// the setting build-hook has, and the one that Nix adds. It reads and writes what Nix has
// opened for it: 0, 2, 4 and 5. env is the environment.
func BuildHook(ctx context.Context, args, env []string) (hook.Exit, error) {
	c := hook.Config{
		Env:   env,
		Stdin: os.Stdin, Stderr: os.Stderr,
		Log: os.NewFile(4, "builder's output"), LogRead: os.NewFile(5, "builder's output, to be read"),
	}
	for _, v := range env {
		if socket, is := strings.CutPrefix(v, HookSocket+"="); is {
			c.Socket = socket
		}
	}
	switch len(args) {
	case 1:
		c.Verbosity = args[0]
	case 2:
		c.Socket, c.Verbosity = args[0], args[1]
	case 3:
		c.Socket, c.Machines, c.Verbosity = args[0], args[1], args[2]
	default:
		return hook.Exit{}, fmt.Errorf("%w [SOCKET [MACHINES]] VERBOSITY; Nix starts this", ErrUsage)
	}
	var err error
	if c.Nix, err = hook.FindNix(os.Getppid()); err != nil {
		return hook.Exit{}, err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)
	defer stop()
	return hook.Run(ctx, c)
}

// End ends this process as a hook is to end if that is by a signal. Otherwise, and should the
// signal not end it, it returns the code to exit with.
func End(e hook.Exit) int {
	if e.Signal == 0 {
		return e.Code
	}
	signal.Reset()
	_ = syscall.Kill(os.Getpid(), e.Signal)
	return 128 + int(e.Signal) // as a shell has it
}
