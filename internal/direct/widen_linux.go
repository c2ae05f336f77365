package direct

import (
	"os"

	"golang.org/x/sys/unix"
)

// widen gives a pipe room for some blocks. It is none if it can't be had: a host may grant
// less to those who are not root.
func widen(pipe *os.File) {
	raw, err := pipe.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, 4*block) })
}
