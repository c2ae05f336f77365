package nix

import (
	"context"
	"fmt"
	"os/exec"
	"time"
)

// commandColumns make ps print lines that parseCommands reads.
const commandColumns = "pid=,ppid=,uid=,args="

func listCommands(ctx context.Context) ([]command, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "/bin/ps", "-axwwo", commandColumns).Output()
	if err != nil {
		return nil, fmt.Errorf("ps: %w", err)
	}
	return parseCommands(string(out)), nil
}
