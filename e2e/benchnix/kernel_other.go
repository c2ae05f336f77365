//go:build !linux

package main

import (
	"errors"
	"os/exec"
	"time"
)

// Labs exist on Linux only.

func (l *ledger) place(cmd *exec.Cmd) { cmd.Err = errors.ErrUnsupported }

func uptime(float64) (time.Time, error) { return time.Time{}, errors.ErrUnsupported }
