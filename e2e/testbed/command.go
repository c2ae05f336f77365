package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/image"
)

// Users of a host. A command runs as one of them.
const (
	Root   = "root"
	Runner = "runner" // an ordinary user whom Nix does not trust, with sudo
)

// Command returns a command that runs argv on the host as root, in /root, with
// the environment of a fresh login. Add to cmd.Env what the program should see;
// secrets too, for nothing of it is in an argument.
//
// When ctx ends, the command and its descendants are killed, but for those that
// made themselves a session of their own. To send it another signal, use
// [Signal]: cmd.Process is not the program itself.
func (h *Host) Command(ctx context.Context, argv ...string) *exec.Cmd {
	return h.CommandAs(ctx, Root, argv...)
}

// CommandAs is [Host.Command] for another user of the host.
func (h *Host) CommandAs(ctx context.Context, user string, argv ...string) *exec.Cmd {
	cmd := h.enter(ctx, user, argv)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Interactive is [Host.CommandAs] for a person at a terminal: the command
// belongs to the caller's process group, so that it may read the terminal and
// Ctrl-C reaches it, and nobody else ends it.
func (h *Host) Interactive(user string, argv ...string) *exec.Cmd {
	return h.enter(context.Background(), user, argv)
}

func (h *Host) enter(ctx context.Context, user string, argv []string) *exec.Cmd {
	pid, err := h.pid()
	if err == nil && pid == 0 {
		err = h.dead()
	}
	home := "/root"
	args := []string{"--target=" + strconv.Itoa(pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd=/", "--"}
	if user != Root {
		home = "/home/" + user
		args = append(args, "setpriv", "--reuid="+user, "--regid="+user, "--init-groups", "--")
	}
	args = append(args, "env", "--chdir="+home, "--")
	cmd := exec.CommandContext(ctx, image.FindTool("nsenter"), append(args, argv...)...)
	cmd.Env = []string{"PATH=" + hostPath, "HOME=" + home, "USER=" + user, "LOGNAME=" + user, "LANG=C.UTF-8", "TERM=dumb"}
	if err != nil {
		cmd.Err = err
	}
	return cmd
}

// Signal sends the signal to the program that a started command of a host runs.
func Signal(cmd *exec.Cmd, sig syscall.Signal) error {
	child, err := program(cmd)
	if err != nil {
		return fmt.Errorf("signal %v: %w", sig, err)
	}
	return syscall.Kill(child, sig)
}

// program returns the process that a started command of a host runs its program
// in.
func program(cmd *exec.Cmd) (pid int, err error) {
	// nsenter forks: only a child can be in another process namespace.
	pid = cmd.Process.Pid
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if err != nil {
		return 0, err
	}
	children := strings.Fields(string(text))
	if len(children) != 1 {
		return 0, fmt.Errorf("%s has %d children: it has just started or ended", cmd.Path, len(children))
	}
	return strconv.Atoi(children[0])
}

// SignalAs is the function [Signal] with the rights of a user of the host, for
// whom a process of somebody else is out of reach.
func (h *Host) SignalAs(ctx context.Context, user string, cmd *exec.Cmd, sig syscall.Signal) error {
	child, err := program(cmd)
	if err != nil {
		return fmt.Errorf("signal %v: %w", sig, err)
	}
	_, err = h.OutputAs(ctx, user, "kill", fmt.Sprintf("-%d", sig), strconv.Itoa(innerPID(child)))
	return err
}

// Output runs a command and returns what it prints, without the white space at
// its end. What it writes to its standard error is in the error if it fails.
func Output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout = &stdout
	if cmd.Stderr == nil {
		cmd.Stderr = &stderr
	}
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return strings.TrimRight(stdout.String(), " \n"), err
}

// Output runs argv as root; see the function [Output].
func (h *Host) Output(ctx context.Context, argv ...string) (string, error) {
	return h.OutputAs(ctx, Root, argv...)
}

// OutputAs runs argv as the user; see the function [Output].
func (h *Host) OutputAs(ctx context.Context, user string, argv ...string) (string, error) {
	out, err := Output(h.CommandAs(ctx, user, argv...))
	if err != nil {
		err = fmt.Errorf("%s: %s: %w", h.Name(), argv[0], err)
	}
	return out, err
}

// Run runs argv as root for its effect.
func (h *Host) Run(ctx context.Context, argv ...string) error {
	_, err := h.Output(ctx, argv...)
	return err
}

// Spawn starts argv on the host as root and leaves it to the host. Its output
// is added to /var/log/NAME.log.
func (h *Host) Spawn(ctx context.Context, name string, argv ...string) error {
	return h.Run(ctx, append([]string{"setsid", "--fork", "sh", "-c",
		`exec "$@" >>"$0" 2>&1 </dev/null`, "/var/log/" + name + ".log"}, argv...)...)
}

// ReadFile returns the content of a file of the host.
func (h *Host) ReadFile(ctx context.Context, name string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd := h.Command(ctx, "cat", "--", name)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("read %s on %s: %w: %s", name, h.Name(), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}

// WriteFile replaces a file of the host, making the directories above it.
func (h *Host) WriteFile(ctx context.Context, name string, data []byte, perm fs.FileMode) error {
	cmd := h.Command(ctx, "sh", "-euc", `mkdir -p "$(dirname "$1")"; cat >"$1"; chmod "$2" "$1"`, "sh", name, fmt.Sprintf("%o", perm.Perm()))
	cmd.Stdin = bytes.NewReader(data)
	if _, err := Output(cmd); err != nil {
		return fmt.Errorf("write %s on %s: %w", name, h.Name(), err)
	}
	return nil
}

// await runs argv again and again until it succeeds.
func (h *Host) await(ctx context.Context, within time.Duration, argv ...string) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		err := h.Run(ctx, argv...)
		if err == nil {
			return nil
		}
		if pause(ctx, 10*time.Millisecond) != nil {
			return errors.Join(fmt.Errorf("within %v", within), err)
		}
	}
}
