package hook

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/proc"
)

// stockCommand is Nix' own hook, as a command of nix.
const stockCommand = "__build-remote"

// FindNix is the program of the very Nix that has called, so that its hook speaks as it does:
// that of the process parent, or else the first nix on PATH. Nix' commands are links to one
// program; others that call a hook, of whatever name, are no nix.
func FindNix(parent int) (string, error) {
	if path, err := executable(parent); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil && filepath.Base(path) == "nix" {
			return path, nil
		}
	}
	path, err := exec.LookPath("nix")
	if err != nil {
		return "", fmt.Errorf("find the Nix that calls: process %d is none, and there is none on PATH: %w", parent, err)
	}
	return path, nil
}

// become replaces this process by Nix' own hook. It returns only if that can't be. Nothing
// may have been read from Nix.
func (h *hook) become() error {
	err := syscall.Exec(h.Nix, []string{"nix", stockCommand, h.Verbosity}, h.Env)
	return fmt.Errorf("run Nix' build hook in place of ours: %s: %w", h.Nix, err)
}

// handOver lets Nix' own hook do all of it, as if it had been called: it is told what was
// read already, and writes where we would. It returns when that has ended.
func (h *hook) handOver(ctx context.Context, read []byte) (Exit, error) {
	cmd := h.stock()
	cmd.Stderr = h.Stderr
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return Exit{}, fmt.Errorf("hand over to Nix' build hook: %w", err)
	}
	if id, err := proc.Of(cmd.Process.Pid); err == nil { // else it has ended
		defer context.AfterFunc(ctx, func() { _ = kill(id) })()
	}
	// It may wait for Nix when the hook has ended; the process ends then, and this with it.
	go func() {
		defer stdin.Close()
		if _, err := stdin.Write(read); err == nil {
			_, _ = io.Copy(stdin, h.in.rest())
		}
	}()
	_ = cmd.Wait() // its state says it all
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return Exit{Signal: status.Signal()}, nil
	}
	return Exit{Code: cmd.ProcessState.ExitCode()}, nil
}
