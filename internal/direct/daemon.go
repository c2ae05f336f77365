package direct

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/proc"
)

// A daemon is one process that serves the store on its standard streams. They are pipes:
// Nix sees in its standard input that the other end has gone, which a socket that was only
// half closed does not show.
type daemon struct {
	cmd    *exec.Cmd
	id     proc.ID
	in     *os.File // to its standard input
	out    *os.File // from its standard output
	stderr tail
	gone   chan struct{} // closed when it has ended and nothing is to be read of stderr any more
	err    error         // how it ended; set before gone is closed
}

const (
	// stderrDelay is how long what a daemon leaves behind may hold its standard error.
	stderrDelay = 500 * time.Millisecond
	// quickEnd is what a daemon takes to end that has nothing to do.
	quickEnd = 100 * time.Millisecond
	// killTime bounds the killing of a tree.
	killTime = time.Second
)

// startDaemon starts one process.
func startDaemon(command, env []string) (_ *daemon, err error) {
	d := &daemon{cmd: exec.Command(command[0], command[1:]...), gone: make(chan struct{})}
	stdin, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", command[0], err)
	}
	defer stdin.Close()
	out, stdout, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", command[0], err), in.Close())
	}
	defer stdout.Close()
	d.in, d.out = in, out
	widen(in)
	widen(out)
	d.cmd.Stdin, d.cmd.Stdout, d.cmd.Stderr = stdin, stdout, &d.stderr
	d.cmd.Dir, d.cmd.Env = "/", env
	if env == nil {
		d.cmd.Env = []string{} // nil would be this process'
	}
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it ends when its caller goes, not with our terminal
	d.cmd.WaitDelay = stderrDelay
	if err := d.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", command[0], err), in.Close(), out.Close())
	}
	if d.id, err = proc.Of(d.cmd.Process.Pid); err != nil {
		d.id = proc.ID{} // it has ended already, and the end is read from its streams
	}
	go func() { // ends with the process
		d.err = d.cmd.Wait()
		close(d.gone)
	}()
	return d, nil
}

// ended tells whether the process has.
func (d *daemon) ended() bool { return closed(d.gone) }

// closed tells whether a channel is that nothing is sent to; nil never is.
func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// within waits for the process' end.
func (d *daemon) within(t time.Duration, sooner <-chan struct{}) bool {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-d.gone:
	case <-timer.C:
	case <-sooner:
	}
	return d.ended()
}

// end closes the process' input, by which Nix ends its builds and itself. After the grace,
// or that of a fence once there is a hurry, the process is killed with all that descends
// from it.
func (d *daemon) end(grace time.Duration, hurry <-chan struct{}, fence time.Duration) error {
	d.in.Close()
	if d.within(min(quickEnd, grace), nil) {
		return nil
	}
	// What it leaves behind has another parent by then.
	tree, err := proc.Tree(d.id.PID)
	if !d.within(grace-quickEnd, hurry) && closed(hurry) {
		d.within(fence-quickEnd, nil)
	}
	ctx, cancel := context.WithTimeout(context.Background(), killTime)
	defer cancel()
	err = errors.Join(err, d.id.KillTree(ctx))
	for _, p := range tree {
		err = errors.Join(err, p.KillTree(ctx))
	}
	d.within(killTime, nil)
	return err
}

// failure says how the process ended if not well.
func (d *daemon) failure() error {
	if d.err == nil {
		return nil
	}
	if text := d.stderr.String(); text != "" {
		return fmt.Errorf("%w: %s", d.err, text)
	}
	return d.err
}

// tail keeps the end of what is written to it. Only one process and its reader write.
type tail struct{ kept []byte }

func (t *tail) Write(p []byte) (int, error) {
	const most = 1 << 10
	t.kept = append(t.kept, p...)
	if extra := len(t.kept) - most; extra > 0 {
		t.kept = append(t.kept[:0], t.kept[extra:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return string(bytes.ToValidUTF8(bytes.TrimSpace(t.kept), nil)) }
