//go:build !linux

package testbed

import (
	"errors"
	"os/exec"
)

// Hosts exist on Linux only; elsewhere [Missing] says so before any of these
// could be called.

const hostBin = "/opt/lab/bin"

func isolate(cmd *exec.Cmd, _ role) { cmd.Err = errors.ErrUnsupported }

func runHost(string, func()) error { return errors.ErrUnsupported }

func (h *Host) hideNix(string) error { return errors.ErrUnsupported }

func runDelay(string, func()) error { return errors.ErrUnsupported }
