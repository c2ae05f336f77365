//go:build unix

package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lock holds the lock called name, as [Lock] does.
func (c Cache) lock(ctx context.Context, name string) (unlock func(), err error) {
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("lab cache: %w", err)
	}
	return Lock(ctx, filepath.Join(c.Dir, name+".lock"), c.logf)
}

// Lock takes the lock that the file stands for, making the file if need be, and
// holds it until unlock is called, which removes the file. The lock goes with the
// process too, so a crash never leaves it held. It waits for its turn as long as
// ctx lets it, and tells logf, if not nil, after a second.
func Lock(ctx context.Context, file string, logf func(string, ...any)) (unlock func(), err error) {
	for tries := 1; ; tries++ {
		f, err := tryLock(file)
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", file, err)
		}
		if f != nil {
			return func() {
				os.Remove(file) // before it is let go: afterwards it may be another's
				f.Close()
			}, nil
		}
		if tries == 20 && logf != nil {
			logf("waiting for another process that holds %s", file)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lock %s: %w", file, context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// tryLock returns nil if the lock is held by somebody else.
func tryLock(file string) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
			return nil, nil
		}
		return nil, err
	}
	// The file may have been removed, by whoever held the lock, since we opened
	// it; what we hold is then nobody's lock.
	held, err1 := f.Stat()
	there, err2 := os.Stat(file)
	if err1 != nil || err2 != nil || !os.SameFile(held, there) {
		f.Close()
		return nil, nil
	}
	return f, nil
}
