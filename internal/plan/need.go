package plan

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Nix is whom to ask whether a cluster is needed.
type Nix struct {
	// Program is nix. If empty, it is looked for on PATH.
	Program string
	// Env is its environment. If nil, ours.
	Env []string
	// Say gets what it says while it evaluates, a line at a time, but for its lists of
	// store paths. If nil, nobody does.
	Say func(line string)
}

// stopGrace is how long Nix has to end once it was told to.
const stopGrace = 5 * time.Second

// Missing counts the derivations that have to be built before the installables are here,
// as far as Nix knows without building; what it only has to fetch is none. Its error holds
// the last of what Nix said.
func (n Nix) Missing(ctx context.Context, installables []string) (int, error) {
	if len(installables) == 0 {
		return 0, errors.New("ask Nix what is left to build: no installables")
	}
	for _, i := range installables {
		if strings.HasPrefix(i, "-") {
			return 0, fmt.Errorf("ask Nix what is left to build: installable %q begins with a dash", clip(i))
		}
	}
	program := n.Program
	if program == "" {
		program = "nix"
	}
	cmd := exec.CommandContext(ctx, program, append([]string{"build", "--dry-run", "--no-link",
		"--extra-experimental-features", "nix-command flakes", "--"}, installables...)...)
	cmd.Env = n.Env
	said := &dryRun{say: n.Say}
	cmd.Stderr = said
	// It may be fetching with programs of its own.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	err := cmd.Run()
	said.end()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return 0, errors.New("ask Nix what is left to build: nix is not on PATH")
	case ctx.Err() != nil:
		return 0, fmt.Errorf("nix build --dry-run: %w", context.Cause(ctx))
	case err != nil:
		return 0, fmt.Errorf("nix build --dry-run: %w: %s", err, strings.Join(said.last, "\n"))
	}
	return said.missing(), nil
}
