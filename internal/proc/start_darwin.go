package proc

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// startTime returns when a process started, in microseconds of Unix time.
func startTime(pid int) (string, error) {
	info, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil {
		return "", err
	}
	const zombie = 5 // SZOMB of sys/proc.h
	if int(info.Proc.P_pid) != pid || info.Proc.P_stat == zombie {
		return "", fmt.Errorf("process %d: %w", pid, os.ErrNotExist)
	}
	t := info.Proc.P_starttime
	return fmt.Sprintf("%d.%06d", t.Sec, t.Usec), nil
}
