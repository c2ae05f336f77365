package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// Process is a command that runs on a lab's host.
type Process struct {
	cmd  *exec.Cmd
	name string
	out  output
	done chan struct{} // closed when it ended
	err  error         // set before done is closed
}

func (p *Process) wait() {
	p.err = p.cmd.Wait()
	p.out.flush()
	close(p.done)
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait returns the exit code when the process has ended. An error says that it did not
// run to its end: ctx ended first, or a signal did it.
func (p *Process) Wait(ctx context.Context) (int, error) {
	select {
	case <-p.done:
	case <-ctx.Done():
		return -1, fmt.Errorf("%s: still running: %w; so far:\n%s", p.name, context.Cause(ctx), p.Output())
	}
	if exit := (*exec.ExitError)(nil); errors.As(p.err, &exit) && exit.ExitCode() >= 0 {
		return exit.ExitCode(), nil
	}
	if p.err != nil {
		return -1, fmt.Errorf("%s: %w", p.name, p.err)
	}
	return 0, nil
}

// Signal sends a signal to the very program, as GitHub's runner does.
func (p *Process) Signal(sig syscall.Signal) error { return testbed.Signal(p.cmd, sig) }

// Output is all that the process printed so far.
func (p *Process) Output() string { return p.out.String() }

// output collects what a process prints, and passes whole lines on.
type output struct {
	label string
	tee   io.Writer

	mu   sync.Mutex
	all  bytes.Buffer // guarded by mu
	line []byte       // not passed on yet; guarded by mu
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all.Write(b)
	if o.tee == nil {
		return len(b), nil
	}
	o.line = append(o.line, b...)
	for {
		i := bytes.IndexByte(o.line, '\n')
		if i < 0 {
			return len(b), nil
		}
		// One write a line: other processes write here too.
		if _, err := fmt.Fprintf(o.tee, "%-12s| %s\n", o.label, strings.TrimRight(string(o.line[:i]), "\r")); err != nil {
			return len(b), err
		}
		o.line = o.line[i+1:]
	}
}

func (o *output) flush() {
	o.mu.Lock()
	rest := len(o.line)
	o.mu.Unlock()
	if rest > 0 {
		_, _ = o.Write([]byte("\n"))
	}
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.String()
}

// String names the process in messages.
func (p *Process) String() string { return p.name }
