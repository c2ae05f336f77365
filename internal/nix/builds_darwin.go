package nix

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"os/user"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// list lists the processes that countBuilds looks at. It asks the kernel for all at once,
// and for each user once whether it is a build user.
func (c *BuildCounter) list(ctx context.Context) ([]process, error) {
	if c.Group == "" {
		users, processes, err := psProcesses(ctx)
		users.none = true
		c.users = users
		return processes, err
	}
	if c.users.ids == nil {
		c.users.ids = map[uint32]bool{}
	}
	table, err := unix.SysctlKinfoProcSlice("kern.proc.all")
	if err != nil {
		return nil, fmt.Errorf("sysctl kern.proc.all: %w", err)
	}
	const zombie = 5 // SZOMB of sys/proc.h
	processes := make([]process, 0, len(table))
	for i := range table {
		if table[i].Proc.P_stat == zombie {
			continue
		}
		uid := table[i].Eproc.Ucred.Uid
		if _, known := c.users.ids[uid]; !known {
			name, err := userName(uid)
			if err != nil {
				return nil, err
			}
			c.users.ids[uid] = buildUserName.MatchString(name)
		}
		processes = append(processes, process{pid: int(table[i].Proc.P_pid), parent: int(table[i].Eproc.Ppid), uid: uid})
	}
	return processes, nil
}

// userName asks the directory service for a user's name; one that nobody has is "".
func userName(uid uint32) (string, error) {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if unknown := user.UnknownUserIdError(0); errors.As(err, &unknown) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return u.Username, nil
}

// psColumns make ps print lines that parsePS reads.
const psColumns = "pid=,ppid=,uid=,user=,comm="

// psProcesses lists all processes by the names that they were started by. The kernel's
// table has the program's own, which is nix for Nix's daemon.
func psProcesses(ctx context.Context) (buildUsers, []process, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "/bin/ps", "-axo", psColumns).Output()
	if err != nil {
		return buildUsers{}, nil, fmt.Errorf("ps: %w", err)
	}
	users, all := parsePS(string(out))
	return users, all, nil
}
