package hook

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// errNixGone says that nobody wants the build any more.
var errNixGone = errors.New("Nix has ended")

// nixEvery is how often Nix is looked for.
const nixEvery = 500 * time.Millisecond

// whileNixReads is ctx until Nix reads no more, or done is called. Nix kills a hook that it
// does not want; a Nix that was killed itself can't, and a build that waits or is silent would
// never write to find that out.
func (h *hook) whileNixReads(ctx context.Context) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() { // ends with ctx
		tick := time.NewTicker(nixEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if unread(h.Stderr) {
					cancel(errNixGone)
				}
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}

// unread tells whether nobody has the other end of a pipe that we write to.
func unread(pipe *os.File) bool {
	raw, err := pipe.SyscallConn()
	if err != nil {
		return false
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd)}} // asks for nothing: errors are told anyway
		n, err := unix.Poll(fds, 0)
		gone = err == nil && n > 0 && fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0
	})
	return err == nil && gone
}
