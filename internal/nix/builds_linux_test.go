package nix_test

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
)

// Real processes of users that only Nix makes: two builds, one of them of two processes.
func TestCountRunningBuilds(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can run processes as other users")
	}
	c := nix.BuildCounter{Group: "daemon"}
	count := func() int {
		t.Helper()
		n, err := c.Count(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := count()
	var builds []*exec.Cmd
	for _, uid := range []uint32{0x34000000, 0x34000001, 0x34070000} {
		cmd := exec.CommandContext(t.Context(), "sleep", "600")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: 65534}}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		builds = append(builds, cmd)
	}
	if got := count() - before; got != 2 {
		t.Errorf("%d builds more, want 2", got)
	}
	// What has ended and was not waited for yet is no build.
	last := builds[2].Process
	if err := last.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := waitForZombie(last.Pid); err != nil {
		t.Fatal(err)
	}
	if got := count() - before; got != 1 {
		t.Errorf("%d builds more, want 1", got)
	}
}

// waitForZombie returns when the child has ended, and leaves it to be waited for.
func waitForZombie(pid int) error {
	const byPID, exited, leave = 1, 4, 0x01000000 // P_PID, WEXITED, WNOWAIT
	_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, byPID, uintptr(pid), 0, exited|leave, 0, 0)
	if errno != 0 {
		return fmt.Errorf("waitid %d: %w", pid, errno)
	}
	return nil
}

// A count is made each second on every builder, and must not be felt there.
func BenchmarkCount(b *testing.B) {
	for _, group := range []string{"daemon", ""} {
		name := "users"
		if group == "" {
			name = "root"
		}
		b.Run(name, func(b *testing.B) {
			c := nix.BuildCounter{Group: group}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Count(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(processes(b)), "processes")
		})
	}
}

func processes(b *testing.B) (n int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		b.Fatal(err)
	}
	for _, e := range entries {
		if c := e.Name()[0]; c >= '0' && c <= '9' {
			n++
		}
	}
	return n
}
