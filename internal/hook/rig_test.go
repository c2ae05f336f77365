package hook_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/hook"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
)

// The test's own program is the hook, for which it needs to be a process that Nix has
// started, and Nix' own hook, where a fault is needed that the real one does not have at will.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == "__build-remote":
		os.Exit(standIn())
	case os.Getenv("BE_HOOK") != "":
		os.Exit(beHook())
	}
	os.Exit(m.Run())
}

func beHook() int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	patience, _ := time.ParseDuration(os.Getenv("PATIENCE"))
	program, err := os.Executable()
	if err != nil {
		panic(err)
	}
	caught := make(chan os.Signal, 1)
	notify(caught)
	go func() {
		<-caught
		cancel()
	}()
	exit, err := hook.Run(ctx, hook.Config{
		Socket: os.Getenv("BE_HOOK"), Machines: os.Getenv("MACHINES"), Verbosity: os.Args[1], Nix: program, Env: os.Environ(), Patience: patience, Hope: time.Second,
		Stdin: os.Stdin, Stderr: os.Stderr, Log: os.NewFile(4, "4"), LogRead: os.NewFile(5, "5"),
	})
	switch {
	case err != nil:
		return 130
	case exit.Signal != 0:
		_ = syscall.Kill(os.Getpid(), exit.Signal)
		select {}
	}
	return exit.Code
}

const (
	drv    = "/nix/store/x-a.drv"
	system = "x86_64-linux"
)

// rig is a scheduler with machines, at a socket.
type rig struct {
	*scheduler.Scheduler
	t        *testing.T
	socket   string
	builders string // the setting that means them
	built    chan scheduler.Built
	end      func() // ends the scheduler, as its process would
}

func newRig(t *testing.T, condition *scheduler.Condition, machines ...scheduler.Machine) *rig {
	t.Helper()
	// A socket's path must be short.
	dir, err := os.MkdirTemp("", "hook")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &rig{t: t, socket: filepath.Join(dir, "s"), builders: "@/etc/nix/machines", built: make(chan scheduler.Built, 10)}
	r.serve(condition, machines...)
	t.Cleanup(func() { r.end() })
	return r
}

func (r *rig) serve(condition *scheduler.Condition, machines ...scheduler.Machine) {
	r.t.Helper()
	cfg := scheduler.Config{Builders: r.builders, Built: func(b scheduler.Built) { r.built <- b }}
	if condition != nil {
		cfg.Condition = func(context.Context, string, time.Time) (scheduler.Condition, error) { return *condition, nil }
	}
	s, err := scheduler.New(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	s.Set(machines)
	ln, err := net.Listen("unix", r.socket)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, ln) }()
	r.Scheduler = s
	r.end = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			r.t.Error(err)
		}
	})
}

// machine is one whose builds go as manner says, see standIn.
func machine(name, manner string) scheduler.Machine {
	return scheduler.Machine{
		Name: name, State: scheduler.Ready, Slots: 1, Systems: []string{system},
		Line: fmt.Sprintf("ssh-ng://%s.example?%s %s - 1 1", name, manner, system),
	}
}

// nix is the end of Nix that a hook has.
type nix struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr *os.File      // its standard error
	lines  *bufio.Reader // of that
	said   bytes.Buffer  // what was read of it
	log    *os.File      // what 4 leads to
	exited bool
}

// start starts a hook, as Nix does: in a group of its own.
func start(t *testing.T, socket string, env ...string) *nix {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, builder, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	n := &nix{t: t, cmd: exec.Command(program, "7"), log: out}
	n.cmd.Env = append(os.Environ(), append([]string{"BE_HOOK=" + socket, "GORACE=atexit_sleep_ms=0"}, env...)...)
	n.cmd.ExtraFiles = []*os.File{nil, builder, out}
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if n.stdin, err = n.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stderr, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	n.cmd.Stderr = w
	n.stderr, n.lines = stderr, bufio.NewReader(stderr)
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	builder.Close()
	_ = stderr.SetReadDeadline(time.Now().Add(patience))
	t.Cleanup(func() {
		if !n.exited {
			_ = syscall.Kill(-n.cmd.Process.Pid, syscall.SIGKILL)
			_ = n.cmd.Wait()
		}
		stderr.Close()
		out.Close()
	})
	return n
}

// patience is how long anything may take here.
const patience = 30 * time.Second

// tell writes to the hook. One that has ended, or reads no more, is found out by its end.
func (n *nix) tell(text []byte) {
	n.t.Helper()
	if _, err := n.stdin.Write(text); err != nil && !errors.Is(err, syscall.EPIPE) {
		n.t.Fatal(err)
	}
}

// line is the next line that the hook writes; empty when there is none any more.
func (n *nix) line() string {
	n.t.Helper()
	line, err := n.lines.ReadString('\n')
	if err != nil && err != io.EOF {
		n.t.Fatalf("%v; it has said:\n%s", err, n.said.String())
	}
	n.said.WriteString(line)
	return strings.TrimSuffix(line, "\n")
}

// until reads lines until one has the text in it.
func (n *nix) until(text string) string {
	n.t.Helper()
	for {
		line := n.line()
		if line == "" {
			n.t.Fatalf("it never said %q, but:\n%s", text, n.said.String())
		}
		if strings.Contains(line, text) {
			return line
		}
	}
}

// asks tells settings and a request.
func (n *nix) asks(settings ...string) {
	n.t.Helper()
	n.tell(hook.Say(settingsWith(settings...), 0, system, drv))
}

func settingsWith(more ...string) []string {
	return append([]string{"allow-symlinked-store", "false", "builders", "@/etc/nix/machines\n", "system", system, "max-jobs", "4"}, more...)
}

// accepted wants the hook to accept, and tells it the rest, as Nix does. It returns the name
// of the machine that it was told.
func (n *nix) accepted() string {
	n.t.Helper()
	if line := n.line(); line != "# accept" {
		n.t.Fatalf("it says %q, want # accept", line)
	}
	name := n.line()
	n.tell(hook.SayWords(inputs, []string{"out"}))
	n.stdin.Close()
	return name
}

var inputs = []string{"/nix/store/a-in", "/nix/store/b-in"}

// ends reads all that the hook still says, and returns how it ended.
func (n *nix) ends() int {
	n.t.Helper()
	for n.line() != "" {
	}
	_ = n.cmd.Wait()
	n.exited = true
	return n.cmd.ProcessState.ExitCode()
}

// wantEnd is for the code that it ends with, and for texts that it said or did not say.
func (n *nix) wantEnd(code int, said []string, unsaid ...string) {
	n.t.Helper()
	if got := n.ends(); got != code {
		n.t.Errorf("it ended with %d, want %d", got, code)
	}
	all := n.said.String()
	for _, text := range said {
		if c := strings.Count(all, text); c != 1 {
			n.t.Errorf("it said %q %d times, want once", text, c)
		}
	}
	for _, text := range unsaid {
		if strings.Contains(all, text) {
			n.t.Errorf("it said %q", text)
		}
	}
	if n.t.Failed() {
		n.t.Logf("all that it said:\n%s", all)
	}
}

// idle wants no slot to be taken.
func (r *rig) idle() {
	r.t.Helper()
	r.eventually("no slot is taken", func() bool {
		for _, used := range r.Running() {
			if used > 0 {
				return false
			}
		}
		return true
	})
}

// eventually waits for what nobody tells of.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("not within %v: %s; slots taken: %v", patience, what, r.Running())
		}
	}
}

func (r *rig) wantBuilt(machine string) {
	r.t.Helper()
	select {
	case b := <-r.built:
		if b.Machine != machine || b.Build.Derivation != drv || !slices.Equal(b.Inputs, inputs) {
			r.t.Errorf("built: %+v, want %s on %s with %v", b, drv, machine, inputs)
		}
	case <-time.After(patience):
		r.t.Error("the scheduler was not told of what is built")
	}
	r.idle()
}
