package tailnet

import (
	"bytes"
	"fmt"
	"os"
)

const (
	// inheritedFile opens the first of exec.Cmd's ExtraFiles in the child. Not
	// /dev/fd, which a bare /dev lacks.
	inheritedFile = "/proc/self/fd/3"

	defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// defaultNetworking is TUN where this process can make a device.
func defaultNetworking() Networking {
	if _, err := os.Stat("/dev/net/tun"); err == nil && os.Geteuid() == 0 {
		return TUN
	}
	return Userspace
}

// startTime returns when a process started, in clock ticks since boot: field 22
// of proc_pid_stat(5). A process that only waits to be reaped is gone.
func startTime(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The second field is the command in parentheses, which may hold anything.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const state, started = 0, 22 - 3 // fields[0] is the third
	if len(fields) <= started {
		return "", fmt.Errorf("/proc/%d/stat: too short", pid)
	}
	if s := fields[state][0]; s == 'Z' || s == 'X' {
		return "", fmt.Errorf("process %d: %w", pid, os.ErrNotExist)
	}
	return string(fields[started]), nil
}
