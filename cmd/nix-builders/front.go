package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/rundir"
)

// GitHub's runner signals only the process that a step has become, and as the job's
// ordinary user: root's process it could not even signal. So a command that needs root
// stays in front as that user, and runs itself behind sudo:
//
//	runner --signals--> front --socket--> nix-builders as-root COMMAND
//
// The socket is root's standard input. Over it goes a [handover], one line, which is
// acknowledged; then it stays open for as long as the front lives. When it ends, by a
// signal to the front or by the front's death, the process behind it ends in order.

// frontBound is what a cancelled front gives the process behind it: less than the 7.5 s
// that GitHub leaves between its signals.
const frontBound = 7 * time.Second

// needsFront tells whether the role has to be run by another process, as root.
func (a *app) needsFront(role string) bool {
	return os.Geteuid() != 0 && (role == rundir.Coordinator || !a.ownState())
}

// ownState tells whether this is an ordinary user who keeps clusters' state in a directory
// of his own. A builder needs no root then, if tailscaled needs none.
func (a *app) ownState() bool {
	dir := a.set.Files.StateDir
	if os.Geteuid() == 0 || dir == defaultStateDir {
		return false
	}
	for {
		_, err := os.Stat(dir)
		if err == nil || dir == filepath.Dir(dir) {
			return err == nil && unix.Access(dir, unix.W_OK) == nil
		}
		dir = filepath.Dir(dir) // to be made
	}
}

// front runs the command as root, and stays until it has ended.
func (a *app) front(ctx context.Context, argv ...string) error {
	sudo, err := exec.LookPath("sudo")
	if err != nil {
		return errors.New("it needs root, and there is no sudo on PATH: run it as root")
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return fmt.Errorf("become root: %w", err)
	}
	defer ours.Close()
	// Not CommandContext: the end of ctx is told over the socket.
	cmd := exec.Command(sudo, append([]string{"-n", "--", self, asRootCommand.name}, argv...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	cmd.Stdin = theirs
	cmd.Stdout, cmd.Stderr = a.streams()
	// A terminal's Ctrl-C is for the front alone.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return fmt.Errorf("become root: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	answered := make(chan bool, 1)
	go func() { answered <- hand(ours, a.handover()) == nil }() // ends with the socket

	select {
	case err = <-ended:
	case <-ctx.Done():
		ours.Close()
		select {
		case err = <-ended:
		case <-time.After(frontBound):
			a.log.Warn("root's process takes longer than a cancelled job allows; it ends by itself")
			return context.Cause(ctx)
		}
	}
	// What it said is still to be read; nobody has the other end any more.
	defer time.AfterFunc(time.Second, func() { ours.Close() }).Stop()
	exit := (*exec.ExitError)(nil)
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &exit):
		return fmt.Errorf("run as root: %w", err)
	case !<-answered && ctx.Err() == nil:
		return fmt.Errorf("it needs root, and sudo does not give it (its message is above; %w): let the user %s run all commands without a password (NOPASSWD), or run it as root",
			err, user())
	case exit.ExitCode() < 0:
		return fmt.Errorf("run as root: %w", err)
	}
	return &exitError{exit.ExitCode()}
}

// hand writes the handover and waits until it is acknowledged.
func hand(conn *os.File, h handover) error {
	if err := writeHandover(conn, h); err != nil {
		return err
	}
	answer := make([]byte, len(acknowledged))
	_, err := io.ReadFull(conn, answer)
	if err == nil && string(answer) != acknowledged {
		err = errors.New("not acknowledged")
	}
	return err
}

// socketPair returns both ends of a socket, of which a child gets the second.
func socketPair() (ours, theirs *os.File, err error) {
	syscall.ForkLock.RLock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	// Only our end: so a Close ends a Read that waits.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fds[0]), "front"), os.NewFile(uintptr(fds[1]), "behind"), nil
}

var asRootCommand = command{
	name:    "as-root",
	args:    "[--detached] COMMAND [ARGUMENT...]",
	summary: "run a command for a front (started by join, coordinator, builder and leave)",
	detail: `Reads the settings from standard input, not from the environment, and runs the command.
Ends it in order when standard input ends.

  --detached   go on when standard input ends`,
}

// asRoot is what runs as asRootCommand, which is in the list of commands itself.
func (a *app) asRoot(ctx context.Context, args []string) error {
	detached := len(args) > 0 && args[0] == "--detached"
	if detached {
		args = args[1:]
	}
	if len(args) == 0 {
		return usagef("which command?")
	}
	in := bufio.NewReader(a.stdin)
	h, err := readHandover(in)
	if err != nil {
		return err
	}
	for name, value := range h.Env {
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	behind := &app{stdin: in, stdout: a.stdout, stderr: a.stderr, secrets: h.Secrets, behindFront: true}
	if !detached {
		behind.lifeline = in
		// The front may be killed and its output closed: what has to be undone still is.
		broken := make(chan os.Signal, 1)
		signal.Notify(broken, syscall.SIGPIPE)
		defer signal.Stop(broken)
		if conn, ok := a.stdin.(io.Writer); ok {
			_, _ = io.WriteString(conn, acknowledged) // a front that is gone is seen below
		}
	}
	for _, c := range commands() {
		if c.name != args[0] {
			continue
		}
		if code := behind.execute(ctx, c, args[1:]); code != exitOK {
			return &exitError{code}
		}
		return nil
	}
	return usagef("there is no command %q", clip(args[0]))
}

// withLifeline ends the context when the lifeline does.
func withLifeline(ctx context.Context, lifeline io.Reader) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with whoever holds the other end, or with this process
		_, _ = io.Copy(io.Discard, lifeline)
		cancel()
	}()
	return ctx, cancel
}

// user names this process's for a message.
func user() string {
	if name := strings.TrimSpace(os.Getenv("USER")); name != "" {
		return name
	}
	return fmt.Sprintf("number %d", os.Getuid())
}
