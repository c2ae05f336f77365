package checks_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The lab is root's: an ordinary user gets it through sudo, whatever the environment has.
func TestMakeFindsSudo(t *testing.T) {
	dir := t.TempDir()
	for name, script := range map[string]string{"id": "echo 1000", "sudo": "exit 0"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := dir + string(os.PathListSeparator) + os.Getenv("PATH")
	for _, env := range [][]string{{"PATH=" + path}, {"PATH=" + path, "CI=true"}} {
		dryRun := exec.CommandContext(t.Context(), "make", "--dry-run", "prepare")
		dryRun.Env = env
		out, err := dryRun.CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), "sudo env ") {
			t.Errorf("make prepare as an ordinary user, with %d variables: %v\n%s", len(env), err, out)
		}
	}
}
