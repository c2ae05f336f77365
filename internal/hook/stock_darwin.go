package hook

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// executable is the program that a process runs.
func executable(pid int) (string, error) {
	args, err := unix.SysctlRaw("kern.procargs2", pid)
	if err != nil {
		return "", fmt.Errorf("sysctl kern.procargs2: %w", err)
	}
	const count = 4 // bytes of the number of arguments, before the program's path
	if len(args) < count {
		return "", errors.New("sysctl kern.procargs2: too short")
	}
	path, _, _ := bytes.Cut(args[count:], []byte{0})
	if !filepath.IsAbs(string(path)) {
		return "", fmt.Errorf("%q was started by a path that depends on where that was", path)
	}
	return string(path), nil
}
