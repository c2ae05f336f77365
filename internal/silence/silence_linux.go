package silence

import (
	"time"

	"golang.org/x/sys/unix"
)

// setUnanswered bounds how long data and probes of a TCP socket may be unacknowledged, also
// after the process has closed it.
func setUnanswered(fd int, d time.Duration) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
}
