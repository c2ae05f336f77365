package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"syscall"
)

// startTime returns when a process started, in clock ticks since boot: field 22
// of proc_pid_stat(5). A process that only waits to be reaped is gone.
func startTime(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, syscall.ESRCH) { // it ended between the opening and the reading
		err = fmt.Errorf("process %d: %w", pid, os.ErrNotExist)
	}
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
