package hook

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/proc"
)

const (
	// maxLine is how much of a line is looked at in one piece. What is longer is relayed in
	// parts, and is no message to us.
	maxLine = 1 << 20
	// orphanGrace is how long something that a hook has started may hold its output when
	// the hook itself has ended.
	orphanGrace = time.Second
	// killLimit bounds how long the kernel takes to end what was killed.
	killLimit = 2 * time.Second
)

// A child is Nix' own hook, run for one builder. What it starts is in our process group, as
// it is itself, so that Nix' killing that ends all of it.
type child struct {
	cmd   *exec.Cmd
	id    proc.ID
	input chan []byte // what it is to read; closed for the end
	lines chan line   // what it writes; closed when it, and all that it started, writes no more
	ended chan struct{}
	state *os.ProcessState // how; to be read once ended is closed
}

// A line is what a child has written, with its end unless it is the last. Only the last part
// of one that is too long has an end.
type line struct {
	text []byte
	part bool // of one that is too long
}

// start starts Nix' own hook and gives it its first input.
func (h *hook) start(input []byte) (*child, error) {
	c := &child{
		cmd:   h.stock(),
		input: make(chan []byte, 4),
		lines: make(chan line, 16),
		ended: make(chan struct{}),
	}
	c.input <- input
	stdin, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start Nix' build hook: %w", err)
	}
	out, stderr, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start Nix' build hook: %w", err)
	}
	c.cmd.Stderr = stderr
	err = c.cmd.Start()
	stderr.Close()
	if err != nil {
		out.Close()
		return nil, fmt.Errorf("start Nix' build hook: %w", err)
	}
	c.id, _ = proc.Of(c.cmd.Process.Pid) // it is there until it is waited for
	go c.write(stdin)
	go c.read(out)
	go func() {
		defer close(c.ended)
		_ = c.cmd.Wait() // its state says it all
		c.state = c.cmd.ProcessState
		_ = out.SetReadDeadline(time.Now().Add(orphanGrace)) // it may be read to its end already
	}()
	return c, nil
}

// stock is Nix' own hook with the descriptors that ours has, except 0 and 2.
func (h *hook) stock() *exec.Cmd {
	cmd := exec.Command(h.Nix, stockCommand, h.Verbosity)
	cmd.Args[0] = "nix"
	cmd.Env = h.Env
	cmd.ExtraFiles = []*os.File{nil, h.Log, h.LogRead} // 3, 4, 5
	cmd.SysProcAttr = childAttributes()
	return cmd
}

// write ends when the input or the child does.
func (c *child) write(stdin io.WriteCloser) {
	for {
		select {
		case text, more := <-c.input:
			if !more {
				stdin.Close()
				return
			}
			_, _ = stdin.Write(text) // it has ended if it does not read
		case <-c.ended:
			return
		}
	}
}

// read ends when the child and what it has started have; or, should something be left of
// these, a moment after the child.
func (c *child) read(out *os.File) {
	defer close(c.lines)
	defer out.Close()
	r := bufio.NewReaderSize(out, 64<<10)
	var text []byte
	for {
		piece, err := r.ReadSlice('\n')
		text = append(text, piece...)
		full := errors.Is(err, bufio.ErrBufferFull)
		if full && len(text) < maxLine {
			continue
		}
		if len(text) > 0 {
			c.lines <- line{text, full}
			text = nil
		}
		if err != nil && !full {
			return
		}
	}
}

// kill ends a process with all that it has started, at once. What it wrote is still read.
func kill(id proc.ID) error {
	ctx, cancel := context.WithTimeout(context.Background(), killLimit)
	defer cancel()
	return id.KillTree(ctx)
}

// code is the exit code of a child that has ended; that of a shell if a signal ended it.
func (c *child) code() int {
	if sig, killed := c.signal(); killed {
		return 128 + int(sig)
	}
	return c.state.ExitCode()
}

// signal is what ended a child that has ended, if a signal did.
func (c *child) signal() (syscall.Signal, bool) {
	status, ok := c.state.Sys().(syscall.WaitStatus)
	return status.Signal(), ok && status.Signaled()
}
