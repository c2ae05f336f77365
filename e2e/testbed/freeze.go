package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Freeze stops the programs of the host where they stand, as the suspension of a
// machine does: time passes and they know nothing of it. With names, it stops only
// the processes of those: a name is a program's, with its first arguments if it is
// to tell processes of one program apart ("nix-builders serve"). It returns when
// all of them stand still.
//
// The host's kernel goes on: it acknowledges what comes in for a frozen program. On
// the tailnet nothing comes in once tailscaled is frozen. [Host.Cut] makes the host
// silent in its own network too.
//
// Commands that start on the host later run as ever. A frozen host can be killed.
func (h *Host) Freeze(ctx context.Context, names ...string) error {
	return h.signalAll(ctx, "freeze", syscall.SIGSTOP, names)
}

// Thaw lets what [Host.Freeze] has stopped go on: all of it or, with names, the
// processes of those.
func (h *Host) Thaw(ctx context.Context, names ...string) error {
	return h.signalAll(ctx, "thaw", syscall.SIGCONT, names)
}

// signalAll stops or continues processes of the host until all of them do as they
// are told: one that is not yet stopped may start another.
func (h *Host) signalAll(ctx context.Context, what string, sig syscall.Signal, names []string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Second, errors.New("not all processes have changed within 10 s"))
	defer cancel()
	for first := true; ; first = false {
		all, err := h.inside(names)
		if err != nil {
			return fmt.Errorf("%s %s: %w", what, h.Name(), err)
		}
		if first && len(all) == 0 && len(names) > 0 {
			return fmt.Errorf("%s %s: no process of %s", what, h.Name(), strings.Join(names, ", "))
		}
		// Some who started a program stop with it and continue it when they are
		// continued, nsenter and sudo among them. So parents stop first and go on last.
		if sig == syscall.SIGCONT {
			slices.Reverse(all)
		}
		again := false
		for _, p := range all {
			if p.frozen() == (sig == syscall.SIGSTOP) {
				continue
			}
			again = true
			if err := syscall.Kill(p.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("%s %s: %w", what, h.Name(), err)
			}
		}
		if !again {
			return nil
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return fmt.Errorf("%s %s: %w", what, h.Name(), err)
		}
	}
}

// inside lists the host's processes but its first, all or those of the names, each
// after its parent, with the nsenter that stands outside in front of what it started.
func (h *Host) inside(names []string) (list []process, err error) {
	first, err := h.pid()
	if err != nil || first == 0 {
		return nil, errors.Join(h.dead(), err)
	}
	space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", first))
	if err != nil {
		return nil, err
	}
	var outside []process
	list, err = processes(func(p process) bool {
		if s, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", p.pid)); err != nil || s != space || p.pid == first {
			return false
		}
		if len(names) > 0 && !slices.ContainsFunc(names, p.is) {
			return false
		}
		if parent, ok := readProcess(p.parent()); ok && filepath.Base(parent.argv[0]) == "nsenter" {
			outside = append(outside, parent)
		}
		return true
	})
	slices.SortFunc(list, func(a, b process) int { return a.depth() - b.depth() })
	return append(outside, list...), err
}

// is reports whether the process runs that program with those first arguments.
func (p process) is(name string) bool {
	want := strings.Fields(name)
	return len(want) > 0 && len(p.argv) >= len(want) &&
		filepath.Base(p.argv[0]) == want[0] && slices.Equal(p.argv[1:len(want)], want[1:])
}

// frozen reports whether the process is stopped, or gone: it does nothing then.
func (p process) frozen() bool {
	f := p.stat()
	return f == nil || f[0] == "T" || f[0] == "Z" || f[0] == "X"
}

// parent returns the number of the process's parent, 0 if it is not known.
func (p process) parent() (pid int) {
	if f := p.stat(); len(f) > 1 {
		fmt.Sscan(f[1], &pid)
	}
	return pid
}

// depth is how many ancestors the process has.
func (p process) depth() (n int) {
	for p.pid > 1 {
		p.pid = p.parent()
		n++
	}
	return n
}

// stat returns the fields of the process's stat from its state on, nil if it is gone.
func (p process) stat() []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return nil
	}
	// PID (NAME) STATE PARENT ...: the name may hold anything.
	return strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
}
