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

// lock holds the lock called name until the returned function is called or the
// process dies. It waits for its turn as long as ctx lets it.
func (c Cache) lock(ctx context.Context, name string) (unlock func(), err error) {
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("lab cache: %w", err)
	}
	return Lock(ctx, filepath.Join(c.Dir, name+".lock"), c.logf)
}

// Lock takes the lock file, making it if need be. The lock goes with the
// process, so a crash never leaves it held; the file itself stays. It waits for
// its turn as long as ctx lets it, and tells logf, if not nil, after a second.
func Lock(ctx context.Context, file string, logf func(string, ...any)) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	for tries := 1; ; tries++ {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", file, err)
		}
		if tries == 20 && logf != nil {
			logf("waiting for another process that holds %s", file)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", file, context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}
