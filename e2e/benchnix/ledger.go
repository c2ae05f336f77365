package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/measure"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// A ledger accounts for what the coordinator's host uses: a control group with one group
// in it for what runs all the time, the server and tailscaled among it, and one for the
// build that is measured, all it starts included.
type ledger struct {
	dir   string
	build *os.File // the build's group, for processes to start in
}

const standing, building = "standing", "building"

func openLedger() (_ *ledger, err error) {
	root, err := controlGroups()
	if err != nil {
		return nil, err
	}
	l := &ledger{dir: filepath.Join(root, fmt.Sprintf("nix-builders-bench-%d", os.Getpid()))}
	for _, name := range []string{"", standing, building} {
		if err := os.MkdirAll(filepath.Join(l.dir, name), 0o755); err != nil {
			return nil, fmt.Errorf("make a control group: %w", err)
		}
	}
	l.build, err = os.Open(filepath.Join(l.dir, building))
	return l, err
}

// controlGroups is where version 2 of the kernel's control groups is mounted, beside
// version 1 or alone: its groups account for CPU even where version 1 has the rest.
func controlGroups() (string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		// ID PARENT DEVICE ROOT TARGET OPTIONS ... - TYPE SOURCE OPTIONS
		before, after, _ := strings.Cut(line, " - ")
		if f := strings.Fields(before); len(f) > 4 && strings.HasPrefix(after, "cgroup2 ") {
			return f[4], nil
		}
	}
	return "", errors.New("this machine has no cgroup2 mounted, by which CPU is accounted for: mount -t cgroup2 none /mnt")
}

// close removes the groups, when the lab is gone and nothing runs in them.
func (l *ledger) close() error {
	err := l.build.Close()
	for _, name := range []string{building, standing, ""} {
		err = errors.Join(err, patiently(func() error { return os.Remove(filepath.Join(l.dir, name)) }))
	}
	return err
}

// patiently tries again for a while: processes leave their group some time after they
// have ended.
func patiently(try func() error) (err error) {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if err = try(); err == nil {
			return nil
		}
	}
	return err
}

// enrol accounts for what runs on the host now, and for all that it will start.
func (l *ledger) enrol(h *testbed.Host) error {
	all, err := h.Processes()
	if err != nil {
		return err
	}
	for _, p := range all {
		err := os.WriteFile(filepath.Join(l.dir, standing, "cgroup.procs"), []byte(strconv.Itoa(p.Outside)), 0)
		if _, gone := os.Stat(fmt.Sprintf("/proc/%d", p.Outside)); err != nil && gone == nil {
			return fmt.Errorf("account for %s: %w", p, err)
		}
	}
	return nil
}

// cpu is the CPU time that all of it has had.
func (l *ledger) cpu() (time.Duration, error) {
	text, err := os.ReadFile(filepath.Join(l.dir, "cpu.stat"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "usage_usec "); ok {
			us, err := strconv.ParseInt(value, 10, 64)
			return time.Duration(us) * time.Microsecond, err
		}
	}
	return 0, fmt.Errorf("%s/cpu.stat has no usage_usec", l.dir)
}

// memory is how many processes there are in a group, and what they have in memory: what
// several share counts once.
func (l *ledger) memory(group string) (processes int, bytes int64, err error) {
	pids, err := l.processes(group)
	for _, pid := range pids {
		if pss, ok := measure.ProcField(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss"); ok { // not of those that have ended
			processes++
			bytes += measure.Kibibytes(pss)
		}
	}
	return processes, bytes, err
}

// killBuild ends what is left of a build. The group's own file for that won't do: on some
// kernels a group that was killed once kills whatever is started in it.
func (l *ledger) killBuild() error {
	return patiently(func() error {
		pids, err := l.processes(building)
		for _, pid := range pids {
			if e := syscall.Kill(pid, syscall.SIGKILL); e != nil && !errors.Is(e, syscall.ESRCH) {
				err = errors.Join(err, e)
			}
		}
		if err == nil && len(pids) > 0 {
			err = fmt.Errorf("%d processes of a build outlive it", len(pids))
		}
		return err
	})
}

// processes lists a group.
func (l *ledger) processes(group string) (pids []int, err error) {
	text, err := os.ReadFile(filepath.Join(l.dir, group, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	for _, field := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(field)
		if err != nil || pid == 0 { // of a namespace that is not ours
			return nil, fmt.Errorf("%s has a process %q", group, field)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}
