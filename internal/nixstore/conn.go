package nixstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/nix-community/go-nix/pkg/wire"
)

// The words of the worker protocol, each 8 bytes, the lowest first.
const (
	clientHello  = 0x6e697863
	serverHello  = 0x6478696f
	major        = 1  // of the protocol
	leastMinor   = 32 // of a daemon: Nix 2.4
	ownMinor     = 35 // what we announce; the lower of both counts
	minorVersion = 33 // since when the daemon tells its Nix' version
	minorTrusted = 35 // and whether it trusts us
)

// The operations that are used.
const (
	opPathInfo  = 26
	opOutputMap = 41
)

// Bounds of what a daemon may send.
const (
	maxString = 64 << 10
	maxItems  = 64 << 10
	maxEvents = 64 << 10 // of its log, in one answer
	maxAnswer = 64 << 20 // all of it, in bytes
)

// A Conn is a connection to a daemon, for one call at a time.
type Conn struct {
	nc     net.Conn
	r      *io.LimitedReader // what is left of an answer
	w      *bufio.Writer
	minor  uint64
	broken bool // it is not known what comes next
}

// Dial connects to the daemon that listens on the socket, and greets it.
func Dial(ctx context.Context, socket string) (*Conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("connect to the Nix daemon: %w", err)
	}
	c, err := Greet(ctx, nc)
	if err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	return c, nil
}

// Greet begins the protocol on a connection to a daemon. The connection is the Conn's then,
// unless there is an error.
func Greet(ctx context.Context, nc net.Conn) (*Conn, error) {
	c := &Conn{nc: nc, r: &io.LimitedReader{R: bufio.NewReader(nc)}, w: bufio.NewWriter(nc)}
	if err := c.within(ctx, c.greet); err != nil {
		return nil, fmt.Errorf("greet the Nix daemon: %w", err)
	}
	return c, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return c.nc.Close() }

func (c *Conn) greet() error {
	if err := c.send(clientHello); err != nil {
		return err
	}
	hello, err := wire.ReadUint64(c.r)
	if err != nil {
		return err
	}
	if hello != serverHello {
		return errors.New("what answers is no Nix daemon")
	}
	version, err := wire.ReadUint64(c.r)
	if err != nil {
		return err
	}
	if version>>8 != major || version&0xff < leastMinor {
		return fmt.Errorf("it speaks version %d.%d of its protocol, and at least %d.%d is needed",
			version>>8, version&0xff, major, leastMinor)
	}
	c.minor = min(version&0xff, ownMinor)
	// The zeroes are for what older daemons wanted to know: a processor, and space to reserve.
	if err := c.send(major<<8|ownMinor, 0, 0); err != nil {
		return err
	}
	if c.minor >= minorVersion {
		if _, err := wire.ReadString(c.r, maxString); err != nil {
			return err
		}
	}
	if c.minor >= minorTrusted {
		if _, err := wire.ReadUint64(c.r); err != nil {
			return err
		}
	}
	return c.readLog()
}

func (c *Conn) send(words ...uint64) error {
	for _, n := range words {
		if err := wire.WriteUint64(c.w, n); err != nil {
			return err
		}
	}
	return c.w.Flush()
}

// ask calls an operation about one store path. read reads its answer.
func (c *Conn) ask(ctx context.Context, op uint64, path string, read func() error) error {
	return c.within(ctx, func() error {
		if err := wire.WriteUint64(c.w, op); err != nil {
			return err
		}
		if err := wire.WriteString(c.w, path); err != nil {
			return err
		}
		if err := c.w.Flush(); err != nil {
			return err
		}
		if err := c.readLog(); err != nil {
			return err
		}
		return read()
	})
}

// within calls f, which must end when ctx does. Errors but the daemon's own break the
// connection.
func (c *Conn) within(ctx context.Context, f func() error) error {
	if c.broken {
		return errBroken
	}
	c.r.N = maxAnswer
	// A deadline of the past ends what waits. It is not set before ctx ends: a timer of its own
	// could be the first to fire, and nobody would know why yet. If it can't be set, the
	// connection is closed, and nothing waits.
	stop := context.AfterFunc(ctx, func() { _ = c.nc.SetDeadline(time.Unix(1, 0)) })
	err := f()
	if !stop() {
		c.broken = true
	}
	if _, ok := errors.AsType[*Error](err); err != nil && !ok {
		c.broken = true
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if c.r.N <= 0 {
			return fmt.Errorf("the daemon's answer is longer than %d bytes", maxAnswer)
		}
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
	}
	return err
}

var errBroken = errors.New("the connection broke before")
