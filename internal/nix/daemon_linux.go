package nix

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const systemdUnit = "nix-daemon.service"

// restart restarts the daemon and says who did.
func (d Daemon) restart(ctx context.Context) (by string, err error) {
	if d.Socket == "" && runsUnderSystemd() && d.service(ctx, "systemctl", "is-active", "--quiet", systemdUnit) == nil {
		return "systemd", d.service(ctx, "systemctl", "restart", systemdUnit)
	}
	old, err := findListener(d.socket())
	if err != nil {
		return "", err
	}
	if err := old.stop(ctx); err != nil {
		return "", err
	}
	respawn := d.Respawn
	if respawn == 0 {
		respawn = 2 * time.Second
	}
	if d.answers(ctx, respawn) == nil {
		return "its parent", nil
	}
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	return "us", old.start()
}

// runsUnderSystemd tells whether systemd is this host's service manager.
func runsUnderSystemd() bool {
	info, err := os.Stat("/run/systemd/system")
	return err == nil && info.IsDir()
}

// listener is a process as it must be started again.
type listener struct {
	pid       int
	exe, dir  string
	args, env []string
	out, err  string // files that its output goes to
}

// findListener finds the process that listens on a unix socket, by the socket's inode:
// a name or a pid file would only be somebody's word.
func findListener(socket string) (listener, error) {
	table, err := os.ReadFile("/proc/self/net/unix")
	if err != nil {
		return listener{}, err
	}
	inode, ok := listeningInode(string(table), socket)
	if !ok {
		return listener{}, fmt.Errorf("nothing in this network namespace listens on %s", socket)
	}
	holders, err := holdersOf("socket:[" + inode + "]")
	if err != nil {
		return listener{}, err
	}
	if len(holders) == 0 {
		return listener{}, fmt.Errorf("no process that we may see listens on %s; run as root", socket)
	}
	return describe(oldest(holders))
}

// listeningInode looks a listening socket up in the text of /proc/net/unix, whose columns
// are Num, RefCount, Protocol, Flags, Type, St, Inode and Path.
func listeningInode(table, socket string) (string, bool) {
	const acceptsConnections = 0x10000 // __SO_ACCEPTCON
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 8 || fields[7] != socket {
			continue
		}
		if flags, err := strconv.ParseUint(fields[3], 16, 32); err == nil && flags&acceptsConnections != 0 {
			return fields[6], true
		}
	}
	return "", false
}

// holdersOf gives the processes that have target open, with their parents.
func holdersOf(target string) (map[int]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	holders := map[int]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			continue // ended, or not ours to look into
		}
		for _, fd := range fds {
			link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name()))
			if err == nil && link == target {
				status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
				p, _ := parseStatus(string(status))
				holders[pid] = p.parent
				break
			}
		}
	}
	return holders, nil
}

// oldest picks the holder whose parent is none: the others inherited the socket from it.
func oldest(holders map[int]int) int {
	var roots []int
	for pid, parent := range holders {
		if _, ok := holders[parent]; !ok {
			roots = append(roots, pid)
		}
	}
	return slices.Min(roots)
}

func describe(pid int) (listener, error) {
	l := listener{pid: pid}
	base := fmt.Sprintf("/proc/%d", pid)
	args, err := os.ReadFile(filepath.Join(base, "cmdline"))
	if err != nil {
		return l, err
	}
	env, err := os.ReadFile(filepath.Join(base, "environ"))
	if err != nil {
		return l, err
	}
	l.args, l.env = splitNul(string(args)), splitNul(string(env))
	if len(l.args) == 0 {
		return l, fmt.Errorf("process %d has no command line", pid)
	}
	if l.exe, err = os.Readlink(filepath.Join(base, "exe")); err != nil {
		return l, err
	}
	if gone, ok := strings.CutSuffix(l.exe, " (deleted)"); ok {
		l.exe = gone // upgraded in place; the new one has the old one's path
	}
	// Before it is stopped: what can't be started again is left alone.
	if !executable(l.exe) {
		return l, fmt.Errorf("the program of process %d, %s, is not there any more", pid, l.exe)
	}
	l.dir, err = os.Readlink(filepath.Join(base, "cwd"))
	if info, statErr := os.Stat(l.dir); err != nil || statErr != nil || !info.IsDir() {
		l.dir = "/"
	}
	l.out, l.err = outputOf(base, 1), outputOf(base, 2)
	return l, nil
}

// outputOf gives the file that a process writes its output to; pipes and terminals have
// another end that may be gone, so nothing is what they become.
func outputOf(base string, fd int) string {
	path, err := os.Readlink(fmt.Sprintf("%s/fd/%d", base, fd))
	if err == nil && filepath.IsAbs(path) {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	return os.DevNull
}

func splitNul(s string) []string {
	s = strings.TrimSuffix(s, "\x00")
	if s == "" {
		return nil
	}
	return strings.Split(s, "\x00")
}

// stop ends the process and waits until it has gone. Only it is told: those that serve
// connections go on.
func (l listener) stop(ctx context.Context) error {
	// A pidfd can't come to mean another process that got the number.
	p, err := os.FindProcess(l.pid)
	if err != nil {
		return err
	}
	defer p.Release()
	for _, step := range []struct {
		signal os.Signal
		wait   time.Duration
	}{{syscall.SIGTERM, stopWait}, {syscall.SIGKILL, stopWait}} {
		err := p.Signal(step.signal)
		if errors.Is(err, os.ErrProcessDone) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("end process %d: %w", l.pid, err)
		}
		for end := time.Now().Add(step.wait); time.Now().Before(end); {
			if l.gone() {
				return nil
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("end process %d: %w", l.pid, context.Cause(ctx))
			case <-time.After(answerPoll):
			}
		}
	}
	return fmt.Errorf("process %d does not end", l.pid)
}

// gone tells whether the process has ended; a zombie has.
func (l listener) gone() bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.pid))
	if err != nil {
		return true
	}
	_, alive := parseStatus(string(status))
	return !alive
}

// start starts the process as it was, in a session of its own so that it outlives us.
func (l listener) start() error {
	cmd := &exec.Cmd{Path: l.exe, Args: l.args, Env: l.env, Dir: l.dir, SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	out, err := os.OpenFile(l.out, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer out.Close()
	errs, err := os.OpenFile(l.err, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer errs.Close()
	cmd.Stdout, cmd.Stderr = out, errs
	if err := cmd.Start(); err != nil {
		return err
	}
	// It is not ours from here on; init inherits it when we end.
	return cmd.Process.Release()
}
