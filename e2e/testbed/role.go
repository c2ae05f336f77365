package testbed

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/image"
)

// role is what a process of a lab does. It is the first argument of the lab's
// program; the second is the directory it belongs to.
type role string

const (
	roleSwitch  role = "run-switch"
	roleControl role = "run-control"
	roleHost    role = "run-host"
	roleDelay   role = "run-delay"
)

// readyFD is where a process of a lab reports that it is ready, by writing a
// line; the end of the file without one means that it failed.
const readyFD = 3

// Role runs one of a lab's own processes if args ask for it, and never returns
// then. The lab's program calls it first of all.
func Role(args []string) {
	if len(args) != 2 {
		return
	}
	var run func(dir string, ready func()) error
	switch role(args[0]) {
	case roleSwitch:
		run = runSwitch
	case roleControl:
		run = runControl
	case roleHost:
		run = runHost
	case roleDelay:
		run = runDelay
	default:
		return
	}
	err := run(args[1], func() {
		f := os.NewFile(readyFD, "ready")
		fmt.Fprintln(f, "ready")
		f.Close()
	})
	fmt.Fprintf(os.Stderr, "%s: %v\n", args[0], err)
	os.Exit(1)
}

// start runs a process of the lab in the namespaces of its role and waits until it is
// ready. It lives until it is killed, whatever becomes of this process.
func (l *Lab) start(ctx context.Context, r role, dir string) (pid int, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("start %s: %w", strings.TrimPrefix(string(r), "run-"), err)
		}
	}()
	logFile := filepath.Join(dir, strings.TrimPrefix(string(r), "run-")+".log")
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	ready, readyW, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer ready.Close()
	defer readyW.Close()

	argv := []string{filepath.Join(l.dir, "bin", labProgram), string(r), dir}
	if r == roleDelay { // in the switch
		sw, err := l.find(roleSwitch, l.dir)
		if err != nil {
			return 0, err
		}
		argv = append([]string{image.FindTool("nsenter"), fmt.Sprintf("--net=/proc/%d/ns/net", sw), "--"}, argv...)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + hostPath, "HOME=/root"}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{readyW}
	isolate(cmd, r)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	readyW.Close()
	go cmd.Wait() // takes the zombie away; ends with the process

	switch r {
	case roleSwitch:
		err = setUpSwitch(ctx, cmd.Process.Pid)
	case roleControl, roleHost:
		err = l.plugIn(ctx, r, dir, cmd.Process.Pid)
	}
	if err != nil {
		cmd.Process.Kill()
		return 0, err
	}

	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, fmt.Errorf("not ready after 30 s"))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { ready.SetReadDeadline(time.Now()) })
	defer stop()
	if _, err := bufio.NewReader(ready).ReadString('\n'); err != nil {
		cmd.Process.Kill()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		text, _ := os.ReadFile(logFile)
		return 0, fmt.Errorf("%w: its log ends with:\n%s", err, tail(text, 10))
	}
	return cmd.Process.Pid, nil
}

// tail returns the last n lines of text.
func tail(text []byte, n int) []byte {
	text = bytes.TrimSpace(text)
	for i := len(text) - 1; i >= 0; i-- {
		if text[i] == '\n' {
			if n--; n == 0 {
				return text[i+1:]
			}
		}
	}
	return text
}
