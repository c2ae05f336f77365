package release_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/release"
)

// tailscale and tailscaled come from tools/go.mod, the client in nix-builders from go.mod:
// they must never be of two versions.
func TestTailscaleIsOneVersion(t *testing.T) {
	dir := copyModule(t)
	m, err := release.Open(t.Context(), dir, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	edit(t, filepath.Join(dir, "tools", "go.mod"), "tailscale.com "+m.Tailscale, "tailscale.com v1.100.0")
	if _, err := release.Open(t.Context(), dir, io.Discard); err == nil || !strings.Contains(err.Error(), "make them one version") {
		t.Errorf("with two versions: %v", err)
	}
}

// Both module files name the toolchain that makes releases, or a job with an older Go would
// build one program by one and the other by another.
func TestToolchainIsNamedTwice(t *testing.T) {
	m, err := release.Open(t.Context(), ".", io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../tools/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "\ntoolchain "+m.Go+"\n") {
		t.Errorf("tools/go.mod does not name %s, as go.mod does", m.Go)
	}
}

func TestOpenElsewhere(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "go.mod"), "module example.com/other\n\ngo 1.26\n")
	for _, dir := range []string{dir, "/"} {
		if _, err := release.Open(t.Context(), dir, io.Discard); err == nil || !strings.Contains(err.Error(), "not in the source of") {
			t.Errorf("Open(%s): %v", dir, err)
		}
	}
}

// What may not be passed on is not built.
func TestModuleWithoutLicence(t *testing.T) {
	dir := copyModule(t)
	m, err := release.Open(t.Context(), dir, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	// A dependency of tailscaled, in a copy that has lost its licence.
	const path = "github.com/kortschak/wol"
	cmd := exec.CommandContext(t.Context(), "go", "list", "-modfile=tools/go.mod", "-m", "-f", "{{.Dir}}", path)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	unlicensed := filepath.Join(dir, ".unlicensed")
	if err := os.CopyFS(unlicensed, os.DirFS(strings.TrimSpace(string(out)))); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(unlicensed, "LICENSE")); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "tools", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "tools", "go.mod"), string(text)+"\nreplace "+path+" => "+unlicensed+"\n")
	made := t.TempDir()
	if _, err := m.Make(t.Context(), made, "v0.0.0-test", []release.Target{release.Host()}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a release with an unlicensed module: %v", err)
	}
	if entries, err := os.ReadDir(made); err != nil || len(entries) > 0 {
		t.Errorf("it left %v, %v", entries, err)
	}
}

func TestBadVersion(t *testing.T) {
	m, err := release.Open(t.Context(), ".", io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Make(t.Context(), t.TempDir(), "1.2", nil); err == nil || !strings.Contains(err.Error(), "want one such as") {
		t.Errorf("version 1.2: %v", err)
	}
}
