package act

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/act/wire"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// What GitHub's runner gives a step that is cancelled, and how long.
const (
	untilTerm = 7500 * time.Millisecond
	untilKill = 2500 * time.Millisecond
)

// Step is one program that a job ran: a step's script, or the main or post of an
// action. Its fields are set when the step has ended, but for Output.
type Step struct {
	Argv []string
	Env  map[string]string // as the program saw it
	Code int               // -1 if a signal ended it
	// Summary is what the step wrote for the job's summary page.
	Summary string
	// Signals are what a cancelled step got before it ended; empty otherwise.
	Signals []syscall.Signal
	// Took is the time from the first of the signals to the end.
	Took time.Duration
	// Lingering says that after its end somebody else held its output open, for
	// which a runner waits in vain.
	Lingering bool

	mu   sync.Mutex
	text []byte        // guarded by mu
	conn *gob.Encoder  // to the shim; nil when that is gone; guarded by mu
	done chan struct{} // closed when the step has ended
}

// Output is what the program has printed so far, secrets and all.
func (s *Step) Output() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.text)
}

// Done is closed when the step has ended.
func (s *Step) Done() <-chan struct{} { return s.done }

func (s *Step) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = append(s.text, b...)
	s.answer(wire.Answer{Output: b})
	return len(b), nil
}

// answer tells the shim, if it is still there. The caller holds mu.
func (s *Step) answer(a wire.Answer) {
	if s.conn != nil && s.conn.Encode(a) != nil {
		s.conn = nil
	}
}

// listen opens the portal of the run, for the user that act runs as.
func (r *Run) listen() (net.Listener, error) {
	socket := filepath.Join(r.dir, wire.Socket)
	ln, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	return ln, os.Chown(socket, uid, uid)
}

// portal serves shims until the listener is closed.
func (r *Run) portal(ctx context.Context, ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		r.serving.Go(func() {
			defer conn.Close()
			if err := r.serve(ctx, conn); err != nil {
				r.fault(err)
			}
		})
	}
}

// serve runs what one shim asks for.
func (r *Run) serve(ctx context.Context, conn net.Conn) error {
	var req wire.Request
	if err := gob.NewDecoder(conn).Decode(&req); err != nil {
		return fmt.Errorf("read a shim's request: %w", err)
	}
	env := map[string]string{}
	for _, e := range req.Env {
		k, v, _ := strings.Cut(e, "=")
		env[k] = v
	}
	j, err := r.job(ctx, env)
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(req.Argv, " "), err)
	}

	// The shim says nothing more: this ends when it does.
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = conn.Read(make([]byte, 1))
	}()

	j.turn.Lock() // until a step that was cancelled is gone
	defer j.turn.Unlock()
	select {
	case <-gone:
		return nil // cancelled before it began
	default:
	}
	s := &Step{Argv: req.Argv, Env: r.environment(j, env), conn: gob.NewEncoder(conn), done: make(chan struct{})}
	j.add(s)
	defer close(s.done)
	if err := s.run(ctx, j.Host, req.Dir, gone); err != nil {
		return fmt.Errorf("%s on %s: %w", strings.Join(req.Argv, " "), j.Host.Name(), err)
	}
	text, err := os.ReadFile(s.Env["GITHUB_STEP_SUMMARY"])
	if err == nil {
		s.Summary = string(text)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer(wire.Answer{Done: true, Code: max(s.Code, 0)})
	return nil
}

// run runs the program to its end. When the shim is gone, it is cancelled.
func (s *Step) run(ctx context.Context, h *testbed.Host, dir string, gone <-chan struct{}) error {
	cmd := h.CommandAs(ctx, testbed.Runner, append([]string{"env", "--chdir=" + dir, "--"}, s.Argv...)...)
	cmd.Env = nil
	for k, v := range s.Env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	slices.Sort(cmd.Env)
	cmd.Stdout, cmd.Stderr = s, s
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	var cancelling sync.WaitGroup
	cancelling.Go(func() {
		select {
		case <-ended:
		case <-gone:
			s.cancel(ctx, h, cmd, ended)
		}
	})
	err := cmd.Wait()
	close(ended)
	cancelling.Wait()
	s.Code = cmd.ProcessState.ExitCode()
	s.Lingering = errors.Is(err, exec.ErrWaitDelay)
	if exit := (*exec.ExitError)(nil); err == nil || errors.As(err, &exit) || s.Lingering {
		return ctx.Err()
	}
	return err
}

// cancel does to the step what GitHub's runner does.
func (s *Step) cancel(ctx context.Context, h *testbed.Host, cmd *exec.Cmd, ended <-chan struct{}) {
	began := time.Now()
	defer func() { s.Took = time.Since(began) }()
	for _, next := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{syscall.SIGINT, untilTerm}, {syscall.SIGTERM, untilKill}} {
		s.Signals = append(s.Signals, next.signal)
		if err := s.signal(ctx, h, cmd, next.signal, ended); err != nil {
			// Not its owner's to signal: the runner could do no more.
			fmt.Fprintf(s, "portal: %v\n", err)
		}
		select {
		case <-ended:
			return
		case <-time.After(next.wait):
		}
	}
	s.Signals = append(s.Signals, syscall.SIGKILL)
	_ = cmd.Cancel()
}

// signal signals the program, which may have been started so lately that it is not
// there yet, or end meanwhile.
func (s *Step) signal(ctx context.Context, h *testbed.Host, cmd *exec.Cmd, sig syscall.Signal, ended <-chan struct{}) error {
	for deadline := time.Now().Add(time.Second); ; {
		err := h.SignalAs(ctx, testbed.Runner, cmd, sig)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ended:
			return nil
		case <-time.After(10 * time.Millisecond):
		}
	}
}
