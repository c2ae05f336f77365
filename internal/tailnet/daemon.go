package tailnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/proc"
)

// Daemon is a tailscaled that we started. It outlives the process that started
// it, and is told from another with the same pid by its start time.
type Daemon struct {
	proc.ID
	// State is the directory of its keys; it is removed with the daemon.
	State string `json:"state"`
	// Log is the file with its output. It is left to whoever wants to read it.
	Log string `json:"log"`

	exited chan struct{} // closed when it ended; nil if it is not our child
}

// startDaemon starts tailscaled in a session of its own, so that no signal meant
// for us and no end of a workflow step reaches it.
func startDaemon(opts JoinOptions) (*Daemon, error) {
	if opts.StateDir == "" {
		return nil, errors.New("start tailscaled: no state directory is configured")
	}
	d := &Daemon{
		State:  filepath.Join(opts.StateDir, "tailscale"),
		Log:    filepath.Join(opts.StateDir, "tailscaled.log"),
		exited: make(chan struct{}),
	}
	if err := os.MkdirAll(d.State, 0o700); err != nil {
		return nil, fmt.Errorf("start tailscaled: %w", err)
	}
	args := []string{"--statedir=" + d.State, "--state=" + filepath.Join(d.State, "tailscaled.state")}
	if opts.Ephemeral {
		args[1] = "--state=mem:"
	}
	if opts.Socket != "" {
		args = append(args, "--socket="+opts.Socket)
		if err := os.MkdirAll(filepath.Dir(opts.Socket), 0o755); err != nil {
			return nil, fmt.Errorf("start tailscaled: %w", err)
		}
	}
	if opts.Networking == Userspace {
		args = append(args, "--tun=userspace-networking")
	}
	if opts.Port != 0 {
		args = append(args, "--port="+strconv.Itoa(opts.Port))
	}
	if opts.NoLogs {
		args = append(args, "--no-logs-no-support")
	}
	log, err := os.OpenFile(d.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start tailscaled: %w", err)
	}
	defer log.Close()

	// Not CommandContext: it must survive ctx.
	cmd := exec.Command(opts.Tailscaled, args...)
	// Else its log's own state stays behind in the system's directory.
	cmd.Env = append(slices.Clone(opts.Env), "TS_LOGS_DIR="+d.State)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start tailscaled: %w", errors.Join(err, os.RemoveAll(d.State)))
	}
	go func() { // ends with the daemon, or with this process
		cmd.Wait()
		close(d.exited)
	}()
	// Its child handle keeps the pid from being reused until Wait, so this is it.
	if d.ID, err = proc.Of(cmd.Process.Pid); err != nil && !errors.Is(err, os.ErrNotExist) {
		cmd.Process.Kill()
		<-d.exited
		return nil, fmt.Errorf("start tailscaled: %w", err)
	}
	return d, nil
}

// end ends the daemon, gently for a while and then not, and removes its state. It takes
// 2 s at most.
func (d *Daemon) end(ctx context.Context) error {
	gone := false
	for _, step := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{syscall.SIGTERM, 1500 * time.Millisecond}, {syscall.SIGKILL, 500 * time.Millisecond}} {
		if err := d.Signal(step.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("end tailscaled (pid %d): %w", d.PID, err)
		}
		bounded, cancel := context.WithTimeout(ctx, step.wait)
		gone = d.Await(bounded)
		cancel()
		if gone {
			break
		}
	}
	if !gone {
		return fmt.Errorf("end tailscaled (pid %d): it does not go", d.PID)
	}
	if err := os.RemoveAll(d.State); err != nil {
		return fmt.Errorf("remove tailscaled's state: %w", err)
	}
	return nil
}

// tail returns the last lines of a file.
func tail(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	const size = 4 << 10
	if fi, err := f.Stat(); err == nil && fi.Size() > size {
		f.Seek(-size, io.SeekEnd)
	}
	text, _ := io.ReadAll(io.LimitReader(f, size))
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-12):], []byte("\n")))
}
