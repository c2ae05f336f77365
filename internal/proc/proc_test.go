package proc_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/proc"
)

func TestProcess(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	id, err := proc.Of(cmd.Process.Pid)
	if err != nil || !id.Alive() {
		t.Fatalf("Of = %+v, %v; alive: %v", id, err, id.Alive())
	}

	other := id
	other.Start += "0"
	if other.Alive() {
		t.Error("another process with the same pid counts as this one")
	}
	if err := other.Signal(syscall.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal to a recycled pid: %v", err)
	}

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if id.Await(ended) {
		t.Error("a process that runs counts as gone")
	}
	if err := id.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// Not reaped yet: a zombie is gone all the same.
	soon, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if !id.Await(soon) {
		t.Error("still there")
	}
	if err := id.Signal(syscall.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal to a process that is gone: %v", err)
	}
}

func TestNobody(t *testing.T) {
	if (proc.ID{}).Alive() {
		t.Error("the zero ID is alive")
	}
	for _, pid := range []int{0, -1, 1 << 30} {
		if _, err := proc.Of(pid); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Of(%d) = %v", pid, err)
		}
	}
}

// A process that is looked at while it ends is there or it is not.
func TestOfWhatIsEnding(t *testing.T) {
	for range 300 {
		cmd := exec.Command("true")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		for {
			_, err := proc.Of(cmd.Process.Pid)
			if errors.Is(err, os.ErrNotExist) {
				break
			}
			if err != nil {
				t.Errorf("while it ended: %v", err)
				break
			}
		}
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
}
