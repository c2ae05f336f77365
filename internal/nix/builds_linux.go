package nix

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

func buildProcesses(ctx context.Context, group string) (buildUsers, []process, error) {
	users, err := readBuildUsers(group)
	if err != nil {
		return users, nil, err
	}
	processes, err := readProcesses(ctx, "/proc")
	return users, processes, err
}

// readProcesses reads a proc file system. Processes that end meanwhile are left out.
func readProcesses(ctx context.Context, proc string) ([]process, error) {
	dir, err := os.Open(proc)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var all []process
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		status, err := os.ReadFile(filepath.Join(proc, name, "status"))
		if err != nil {
			continue
		}
		p, ok := parseStatus(string(status))
		if !ok {
			continue
		}
		p.pid = pid
		// Absent for kernel threads, and unreadable for others' processes unless root.
		exe, _ := os.Readlink(filepath.Join(proc, name, "exe"))
		p.nix = filepath.Base(strings.TrimSuffix(exe, " (deleted)")) == "nix"
		all = append(all, p)
	}
	return all, nil
}

// parseStatus reads the lines that matter of /proc/PID/status. Zombies are not processes
// any more.
func parseStatus(status string) (p process, ok bool) {
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":\t")
		switch key {
		case "Name":
			p.command = value
		case "State":
			if strings.HasPrefix(value, "Z") || strings.HasPrefix(value, "X") {
				return p, false
			}
		case "PPid":
			p.parent, _ = strconv.Atoi(value)
		case "Uid":
			real, _, _ := strings.Cut(value, "\t")
			uid, err := strconv.ParseUint(real, 10, 32)
			if err != nil {
				return p, false
			}
			p.uid = uint32(uid)
			return p, true
		}
	}
	return p, false
}
