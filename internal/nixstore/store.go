package nixstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// DefaultSocket is where Nix' daemon listens.
const DefaultSocket = "/nix/var/nix/daemon-socket/socket"

// A Store asks the daemon over one connection, which it makes when it is needed, and again
// when it broke. Its methods may be called at the same time; they take turns.
type Store struct {
	Socket  string        // if empty, DefaultSocket
	Timeout time.Duration // of a call that has its turn; if zero, 10 s

	once sync.Once  // makes turn
	turn chan *Conn // who has taken from it has the turn, and gives back; nil: no connection is open
}

// PathInfo says what the store knows of a path, or [ErrInvalid].
func (s *Store) PathInfo(ctx context.Context, path string) (info Info, err error) {
	err = s.call(ctx, func(ctx context.Context, c *Conn) error {
		info, err = c.PathInfo(ctx, path)
		return err
	})
	return info, err
}

// Valid tells whether a path is valid in the store.
func (s *Store) Valid(ctx context.Context, path string) (bool, error) {
	_, err := s.PathInfo(ctx, path)
	if errors.Is(err, ErrInvalid) {
		return false, nil
	}
	return err == nil, err
}

// Outputs gives the paths of a derivation's outputs by their names. A path that nobody knows
// before it is built is empty.
func (s *Store) Outputs(ctx context.Context, drv string) (outputs map[string]string, err error) {
	err = s.call(ctx, func(ctx context.Context, c *Conn) error {
		outputs, err = c.Outputs(ctx, drv)
		return err
	})
	return outputs, err
}

// Close ends the connection, after the call that has its turn. The next call makes another.
func (s *Store) Close() error {
	c, err := s.take(context.Background()) // a call ends within Timeout
	if err != nil {
		return err
	}
	defer func() { s.turn <- nil }()
	if c == nil {
		return nil
	}
	return c.Close()
}

// take waits for a turn. The connection goes back to s.turn, or another, or nil.
func (s *Store) take(ctx context.Context) (*Conn, error) {
	s.once.Do(func() {
		s.turn = make(chan *Conn, 1)
		s.turn <- nil
	})
	// Who has given up gets no turn: he would break a connection that is good.
	if ctx.Err() == nil {
		select {
		case c := <-s.turn:
			return c, nil
		case <-ctx.Done():
		}
	}
	return nil, fmt.Errorf("wait for others to ask the Nix daemon: %w", context.Cause(ctx))
}

// call asks over the connection that is open, and once more over a new one if that is
// broken: the daemon may have been restarted since.
func (s *Store) call(ctx context.Context, f func(context.Context, *Conn) error) error {
	c, err := s.take(ctx)
	if err != nil {
		return err
	}
	defer func() { s.turn <- c }()
	timeout := cmp.Or(s.Timeout, 10*time.Second)
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v", timeout))
	defer cancel()
	old := c != nil
	c, err = s.try(ctx, c, f)
	if old && c == nil && ctx.Err() == nil {
		c, err = s.try(ctx, nil, f)
	}
	return err
}

// try asks over c, or over a new connection if it is nil, and returns it if it is good for more.
func (s *Store) try(ctx context.Context, c *Conn, f func(context.Context, *Conn) error) (_ *Conn, err error) {
	if c == nil {
		if c, err = Dial(ctx, cmp.Or(s.Socket, DefaultSocket)); err != nil {
			return nil, err
		}
	}
	err = f(ctx, c)
	if c.broken {
		_ = c.Close() // why it broke is in err
		return nil, err
	}
	return c, err
}
