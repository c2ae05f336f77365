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

	mu   sync.Mutex // guards conn, and whose turn it is
	conn *Conn      // nil: none is open
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

// Close ends the connection. The next call makes another.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closeLocked()
}

func (s *Store) closeLocked() error {
	if s.conn == nil {
		return nil
	}
	err := s.conn.Close()
	s.conn = nil
	return err
}

// call asks over the connection that is open, and once more over a new one if that is
// broken: the daemon may have been restarted since.
func (s *Store) call(ctx context.Context, f func(context.Context, *Conn) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	timeout := cmp.Or(s.Timeout, 10*time.Second)
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v", timeout))
	defer cancel()
	old := s.conn != nil
	err := s.tryLocked(ctx, f)
	if old && s.conn == nil && ctx.Err() == nil {
		err = s.tryLocked(ctx, f)
	}
	return err
}

// tryLocked leaves no broken connection behind.
func (s *Store) tryLocked(ctx context.Context, f func(context.Context, *Conn) error) (err error) {
	if s.conn == nil {
		if s.conn, err = Dial(ctx, cmp.Or(s.Socket, DefaultSocket)); err != nil {
			return err
		}
	}
	err = f(ctx, s.conn)
	if s.conn.broken {
		_ = s.closeLocked() // why it broke is in err
	}
	return err
}
