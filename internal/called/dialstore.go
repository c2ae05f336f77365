package called

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/direct"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/silence"
)

const (
	// DialFile in a coordinator's directory has its [Dialing].
	DialFile = "dial.json"
	// StoresSocket there is where connections are handed out.
	StoresSocket = "stores.sock"
	// UnknownLease is the lease where nobody has said one: a coordinator's default.
	UnknownLease = 45 * time.Second
	// askTime bounds the wait for one of the connections.
	askTime = 100 * time.Millisecond
)

// Dialing is how a process of the coordinator's host connects to builders, which is told
// none of our settings.
type Dialing struct {
	LeaseSeconds float64 `json:"lease_seconds"`
	// Userspace says that the host has no route to its peers, and tailscaled connects.
	Userspace bool   `json:"userspace,omitempty"`
	Socket    string `json:"socket,omitempty"` // of tailscaled; empty: the system's
}

// ErrTailscaled says that only tailscaled can connect, to a program that does not know how to
// ask it.
var ErrTailscaled = errors.New("this host has no route to its peers, and this program can't ask tailscaled for one")

// Tailscaled gives what connects by way of the tailscaled at a socket, connections that end
// after a silence of quiet.
type Tailscaled func(socket string, quiet time.Duration) direct.Dial

// DialStore connects in and out to a builder's store, by the arguments ADDRESS:PORT DIR
// [NAME] and --stdio, which Nix adds. It returns when either side has closed. tailscaled may
// be nil.
func DialStore(ctx context.Context, args []string, in io.Reader, out io.Writer, tailscaled Tailscaled) error {
	if n := len(args); n > 0 && args[n-1] == "--stdio" {
		args = args[:n-1]
	}
	if len(args) != 2 && len(args) != 3 {
		return fmt.Errorf("%w ADDRESS:PORT DIR [NAME]", ErrUsage)
	}
	conn, err := openStore(ctx, args[0], args[1], tailscaled)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := direct.Carry(conn, in, out); err != nil && ctx.Err() == nil {
		return err
	}
	return context.Cause(ctx)
}

// openStore gives a connection to the store at addr: one that the coordinator has kept
// ready, or else a new one.
func openStore(ctx context.Context, addr, dir string, tailscaled Tailscaled) (net.Conn, error) {
	how := Dialing{LeaseSeconds: UnknownLease.Seconds()}
	if dir == "." {
		dir = filepath.Dir(os.Args[0])
	}
	if dir != "-" {
		b, err := os.ReadFile(filepath.Join(dir, DialFile))
		if err == nil {
			err = json.Unmarshal(b, &how)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // it may be too early or too late, which the builder tells
			return nil, fmt.Errorf("read how to connect to builders: %w", err)
		}
	}
	lease := time.Duration(how.LeaseSeconds * float64(time.Second))
	dial := silence.Dialer(lease).DialContext
	switch {
	case how.Userspace && tailscaled == nil:
		return nil, ErrTailscaled
	case how.Userspace:
		dial = tailscaled(how.Socket, lease)
	case dir != "-":
		// Without the coordinator's process there are none, and builds go on.
		if conn, err := direct.Ask(filepath.Join(dir, StoresSocket), addr, askTime); err == nil && conn != nil {
			return conn, nil
		}
	}
	return direct.Connect(ctx, dial, addr)
}
