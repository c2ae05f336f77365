package nix

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// list lists the processes that countBuilds looks at: those of build users, or all where
// builds run as root. The users are read once: Nix is installed by now.
func (c *BuildCounter) list(ctx context.Context) ([]process, error) {
	if c.users.ids == nil && !c.users.none {
		users, err := readBuildUsers(c.Group)
		if err != nil {
			return nil, err
		}
		c.users = users
	}
	return readProcesses(ctx, "/proc", c.users)
}

// readProcesses reads of a proc file system the processes of the users, or all where there
// are none. Processes that end meanwhile are left out.
func readProcesses(ctx context.Context, proc string, users buildUsers) ([]process, error) {
	var all []process
	err := eachProcess(ctx, proc, func(pid int, path string) {
		if !users.none && !owned(path, users) {
			return
		}
		p, ok := readStatus(path)
		if !ok {
			return
		}
		p.pid = pid
		// Absent for kernel threads, and unreadable for others' processes unless root.
		exe, _ := os.Readlink(path + "/exe")
		p.nix = filepath.Base(strings.TrimSuffix(exe, " (deleted)")) == "nix"
		all = append(all, p)
	})
	return all, err
}

// readStatus is parseStatus of a process by its directory; false too if it has ended.
func readStatus(path string) (process, bool) {
	status, err := os.ReadFile(path + "/status")
	if err != nil {
		return process{}, false
	}
	return parseStatus(string(status))
}

// eachProcess visits the directories of a proc file system's processes, in no order.
func eachProcess(ctx context.Context, proc string, visit func(pid int, path string)) error {
	dir, err := os.Open(proc)
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		visit(pid, proc+"/"+name)
	}
	return nil
}

// owned tells whether one of the users owns the directory of a process. It is the cheap
// way to the effective user, and Linux keeps it true for every process: of what /proc has,
// only directories that not all may read change their owner with the dumpable flag.
func owned(path string, users buildUsers) bool {
	var stat syscall.Stat_t
	if err := syscall.Lstat(path, &stat); err != nil {
		return false // it has ended
	}
	_, ok := users.slot(stat.Uid)
	return ok
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
