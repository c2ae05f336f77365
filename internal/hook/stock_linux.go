package hook

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// executable is the program that a process runs.
func executable(pid int) (string, error) {
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err == nil && strings.HasSuffix(path, " (deleted)") {
		err = errors.New("it was replaced")
	}
	return path, err
}
