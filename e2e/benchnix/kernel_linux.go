package main

import (
	"fmt"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// place makes the command start in the build's group.
func (l *ledger) place(cmd *exec.Cmd) {
	cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(l.build.Fd())
}

// uptime is the time that /proc/uptime says on any host of this machine, which is how
// derivations tell the time to a hundredth of a second.
func uptime(seconds float64) (time.Time, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return time.Time{}, fmt.Errorf("read the clock: %w", err)
	}
	ago := time.Duration(now.Nano()) - time.Duration(seconds*float64(time.Second))
	return time.Now().Add(-ago), nil
}
