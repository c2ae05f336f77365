//go:build !linux

package act

import "os/exec"

// There are no hosts elsewhere, see testbed.Missing.
func dieWithParent(*exec.Cmd) {}
