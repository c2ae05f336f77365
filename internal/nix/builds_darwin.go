package nix

import (
	"context"
	"fmt"
	"os/exec"
	"time"
)

// psColumns make ps print lines that parsePS reads.
const psColumns = "pid=,ppid=,uid=,user=,comm="

func buildProcesses(ctx context.Context, group string) (buildUsers, []process, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "/bin/ps", "-axo", psColumns).Output()
	if err != nil {
		return buildUsers{}, nil, fmt.Errorf("ps: %w", err)
	}
	users, all := parsePS(string(out))
	users.none = group == ""
	return users, all, nil
}
