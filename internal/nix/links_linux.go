package nix

import (
	"context"
	"os"
	"strings"
)

func listCommands(ctx context.Context) ([]command, error) { return readCommands(ctx, "/proc") }

// readCommands reads the processes of a proc file system. Those without arguments, which
// are the kernel's and the dead, are left out, and so is what ends meanwhile.
func readCommands(ctx context.Context, proc string) ([]command, error) {
	var all []command
	err := eachProcess(ctx, proc, func(pid int, path string) {
		argv, err := os.ReadFile(path + "/cmdline")
		if err != nil || len(argv) == 0 {
			return
		}
		p, ok := readStatus(path)
		if !ok {
			return
		}
		all = append(all, command{
			pid: pid, parent: p.parent, uid: int(p.uid),
			argv: strings.Split(strings.TrimSuffix(string(argv), "\x00"), "\x00"),
		})
	})
	return all, err
}
