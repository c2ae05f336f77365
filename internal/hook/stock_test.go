package hook_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/hook"
)

func TestFindNix(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	onPath := filepath.Join(dir, "bin", "nix")
	if err := os.Mkdir(filepath.Dir(onPath), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(onPath, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Dir(onPath)) // nothing else is looked for from here on
	for name, want := range map[string]string{
		"nix":   "", // itself
		"sleep": onPath, "nix-eval-jobs": onPath,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, program, 0o755); err != nil {
				t.Fatal(err)
			}
			if runtime.GOOS == "darwin" && want == "" {
				t.Skip("a copy of a system's program does not run here")
			}
			cmd := exec.Command(path, "60")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
			if want == "" {
				want = path
			}
			if got, err := hook.FindNix(cmd.Process.Pid); got != want {
				t.Errorf("the Nix that calls is %q, %v; want %q", got, err, want)
			}
		})
	}
	t.Run("nowhere", func(t *testing.T) {
		t.Setenv("PATH", dir+"/none")
		if got, err := hook.FindNix(os.Getpid()); err == nil {
			t.Errorf("there is %q", got)
		}
	})
}
