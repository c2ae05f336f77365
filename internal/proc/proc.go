// Package proc names processes so that they can be found again: a pid may be another's
// by then, a pid with its start time can't.
package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// ID names one process for as long as the host is up. The zero ID names none.
type ID struct {
	PID   int    `json:"pid"`
	Start string `json:"start"` // when it started, in the platform's own words
}

// Of names the process that has this pid now. The error wraps os.ErrNotExist if there is
// none, or one that only waits to be reaped.
func Of(pid int) (ID, error) {
	if pid <= 0 {
		return ID{}, fmt.Errorf("process %d: %w", pid, os.ErrNotExist)
	}
	start, err := startTime(pid)
	if err != nil {
		return ID{}, err
	}
	return ID{PID: pid, Start: start}, nil
}

// Alive tells whether the very process still is. A zombie is not.
func (id ID) Alive() bool {
	now, err := Of(id.PID)
	return err == nil && now == id
}

// Signal sends a signal to the very process; os.ErrProcessDone if it is gone.
func (id ID) Signal(sig syscall.Signal) error {
	if !id.Alive() {
		return os.ErrProcessDone
	}
	err := syscall.Kill(id.PID, sig)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// Await waits until the process is gone or ctx ends, and tells whether it is gone. Only a
// parent is told of a process's end, so anyone else has to look.
func (id ID) Await(ctx context.Context) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for id.Alive() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return !id.Alive()
		}
	}
	return true
}
