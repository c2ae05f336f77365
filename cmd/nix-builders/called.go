package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/called"
)

// hookProgram has the commands that Nix calls, and starts faster than this program.
const hookProgram = "nix-builders-hook"

// calledProgram is the program whose commands Nix calls: that one if it lies beside us, and
// else this one.
func calledProgram() (string, error) {
	if beside, err := called.Beside(hookProgram); err == nil {
		if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return beside, nil
		}
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	return self, nil
}

// misused makes a usage error of one of theirs.
func misused(err error) error {
	if errors.Is(err, called.ErrUsage) {
		return &usageError{err}
	}
	return err
}
