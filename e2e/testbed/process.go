package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// labProgram is the name of the program that everything in a lab runs, in the
// lab's bin directory.
const labProgram = "lab"

// process is a running process, by its number outside of all hosts.
type process struct {
	pid  int
	argv []string
}

// roles returns the lab's own processes: the switch, the control server, the
// first process of each host and what delays its frames. All of them run the lab's program.
func roles(labDir string) ([]process, error) {
	program := filepath.Join(labDir, "bin", labProgram)
	return processes(func(p process) bool { return len(p.argv) >= 3 && p.argv[0] == program })
}

// members returns the lab's own processes for dir, which is the lab's directory
// or a host's, whatever runs in a host below it, and what runs a program of its
// shared directory.
func members(labDir, dir string) ([]process, error) {
	program := filepath.Join(labDir, "bin", labProgram)
	return processes(func(p process) bool {
		if len(p.argv) >= 3 && p.argv[0] == program && (p.argv[2] == dir || strings.HasPrefix(p.argv[2], dir+"/")) {
			return true
		}
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.pid)); err == nil && strings.HasPrefix(exe, filepath.Join(dir, "shared")+"/") {
			return true
		}
		return p.mounts(dir)
	})
}

// mounts reports whether the process sees a mount of something below dir: only
// a host's processes do.
func (p process) mounts(dir string) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", p.pid))
	return err == nil && bytes.Contains(text, []byte(dir+"/"))
}

// find returns the pid of the lab's process with that role, 0 if there is none.
func (l *Lab) find(r role, dir string) (int, error) {
	all, err := roles(l.dir)
	if err != nil {
		return 0, err
	}
	i := slices.IndexFunc(all, func(p process) bool { return p.argv[1] == string(r) && p.argv[2] == dir })
	if i < 0 {
		return 0, nil
	}
	return all[i].pid, nil
}

// processes returns the processes that are not zombies and that want accepts.
func processes(want func(process) bool) ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if p, ok := readProcess(pid); ok && want(p) {
			found = append(found, p)
		}
	}
	return found, nil
}

// readProcess reports false if the process is gone. A zombie has no arguments,
// and neither has a thread of the kernel.
func readProcess(pid int) (process, bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(text) == 0 {
		return process{}, false
	}
	return process{pid: pid, argv: strings.Split(string(bytes.TrimSuffix(text, []byte{0})), "\x00")}, true
}

// kill kills the process unless it has become another one since it was read.
func (p process) kill() error {
	handle, err := os.FindProcess(p.pid) // a handle on the process, not on its number
	if err != nil {
		return err
	}
	defer handle.Release()
	if now, ok := readProcess(p.pid); !ok || !slices.Equal(now.argv, p.argv) {
		return nil
	}
	if err := handle.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", strings.Join(p.argv, " "), err)
	}
	return nil
}

// killMembers kills the members, again and again until there are none. The end
// of a host's first process is the end of all its processes, but not at once:
// it is no longer to be seen a while before they are.
func killMembers(ctx context.Context, labDir, dir string) error {
	return killAll(ctx, func() ([]process, error) { return members(labDir, dir) })
}

// killAll kills what list lists until it lists nothing.
func killAll(ctx context.Context, list func() ([]process, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Second, errors.New("processes are still there 10 s after they were killed"))
	defer cancel()
	for {
		found, err := list()
		if err != nil || len(found) == 0 {
			return err
		}
		for _, p := range found {
			if err := p.kill(); err != nil {
				return err
			}
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
}

// pause waits for d; it returns early, with the reason, when ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// Leftovers lists what is still there of the lab of that name: its directory,
// processes in it or in one of its hosts, mounts and links. Nothing may be left
// after [Down].
func Leftovers(parent, name string) ([]string, error) {
	dir, err := locate(parent, name)
	if err != nil {
		return nil, err
	}
	var left []string
	if _, err := os.Lstat(dir); err == nil {
		left = append(left, "directory "+dir)
	}
	self := os.Getpid()
	found, err := processes(func(p process) bool {
		if p.pid == self {
			return false
		}
		if slices.ContainsFunc(p.argv, func(a string) bool { return strings.HasPrefix(a, dir+"/") }) {
			return true
		}
		return p.mounts(dir)
	})
	if err != nil {
		return nil, err
	}
	for _, p := range found {
		left = append(left, fmt.Sprintf("process %d: %s", p.pid, strings.Join(p.argv, " ")))
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, dir+"/") {
			left = append(left, "mount "+strings.TrimSpace(line))
		}
	}
	links, err := os.ReadDir("/sys/class/net")
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		if strings.HasPrefix(l.Name(), linkPrefix) {
			left = append(left, "link "+l.Name())
		}
	}
	return left, nil
}
