package nix

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os/exec"
	"syscall"
	"time"
)

// Daemon is this host's Nix daemon.
type Daemon struct {
	// Socket is where it listens. If empty, where Nix has it.
	Socket string
	// Programs is where systemctl and launchctl are found.
	Programs Programs
	// Log is told what was restarted, and how. If nil, nobody is.
	Log *slog.Logger
	// Respawn is how long whoever started a daemon by hand has to start it again, before we
	// do. If zero, 2 s.
	Respawn time.Duration
}

const (
	daemonSocket = "/nix/var/nix/daemon-socket/socket"
	stopWait     = 5 * time.Second  // for a daemon to end
	answerWait   = 20 * time.Second // for a restarted daemon to answer
	answerPoll   = 20 * time.Millisecond
)

func (d Daemon) socket() string {
	if d.Socket == "" {
		return daemonSocket
	}
	return d.Socket
}

func (d Daemon) log() *slog.Logger {
	if d.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return d.Log
}

// Restart makes the daemon read nix.conf again and returns when it answers. It is restarted
// by whoever looks after it: systemd, launchd, or whatever parent it has; if nobody does,
// it is started again as it was. Builds that run go on: their processes are in sessions of
// their own. Where no daemon listens, as in a single-user installation, there is nothing to
// do, as each command reads nix.conf itself.
func (d Daemon) Restart(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("restart the Nix daemon: %w", err)
		}
	}()
	if err := d.hello(ctx); err != nil {
		if notExist(err) || errors.Is(err, syscall.ECONNREFUSED) {
			d.log().Debug("no Nix daemon listens, so none is restarted", "socket", d.socket())
			return nil
		}
		if errors.Is(err, errNotNix) {
			return err
		}
		// It listens but does not answer: one more reason to restart it.
		d.log().Warn("the Nix daemon does not answer", "err", err)
	}
	by, err := d.restart(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := d.answers(ctx, answerWait); err != nil {
		return fmt.Errorf("after %s: %w", by, err)
	}
	d.log().Info("restarted the Nix daemon", "by", by, "answered_after", time.Since(start).Round(time.Millisecond))
	return nil
}

// service runs a service manager's program within a bound.
func (d Daemon) service(ctx context.Context, program string, args ...string) error {
	path, err := d.Programs.find(program)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = killGrace
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%v: %w", cmd.Args, &runError{stderr: string(out), err: err})
	}
	return nil
}

// answers waits until the daemon answers.
func (d Daemon) answers(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		err := d.hello(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no answer within %v: %w", within, err)
		case <-time.After(answerPoll):
		}
	}
}

// The words with which Nix's worker protocol begins, each 8 bytes, the lowest first.
const (
	clientHello = 0x6e697863
	daemonHello = 0x6478696f
)

var errNotNix = errors.New("no Nix daemon")

// hello greets the daemon and waits for its greeting: a connection alone proves little, as
// systemd holds the socket open over a restart.
func (d Daemon) hello(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", d.socket())
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	// The deadline does not know of a context that is cancelled.
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := conn.Write(binary.LittleEndian.AppendUint64(nil, clientHello)); err != nil {
		return err
	}
	var answer [8]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return err
	}
	if got := binary.LittleEndian.Uint64(answer[:]); got != daemonHello {
		return fmt.Errorf("%w: what listens on %s greets with %#x", errNotNix, d.socket(), got)
	}
	return nil
}
