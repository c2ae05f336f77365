package silence

import (
	"time"

	"golang.org/x/sys/unix"
)

// setUnanswered bounds how long data of a TCP socket may be unacknowledged, in whole
// seconds. Probes have their count.
func setUnanswered(fd int, d time.Duration) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_RXT_CONNDROPTIME, int((d+time.Second-1)/time.Second))
}
