package nix

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

func listCommands(ctx context.Context) ([]command, error) { return readCommands(ctx, "/proc") }

// readCommands reads the processes of a proc file system. Those without arguments, which
// are the kernel's and the dead, are left out, and so is what ends meanwhile.
func readCommands(ctx context.Context, proc string) ([]command, error) {
	dir, err := os.Open(proc)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var all []command
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		argv, err := os.ReadFile(filepath.Join(proc, name, "cmdline"))
		if err != nil || len(argv) == 0 {
			continue
		}
		status, err := os.ReadFile(filepath.Join(proc, name, "status"))
		if err != nil {
			continue
		}
		p, ok := parseStatus(string(status))
		if !ok {
			continue
		}
		all = append(all, command{
			pid: pid, parent: p.parent, uid: int(p.uid),
			argv: strings.Split(strings.TrimSuffix(string(argv), "\x00"), "\x00"),
		})
	}
	return all, nil
}
