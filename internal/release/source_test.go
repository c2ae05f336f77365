package release_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/release"
)

func TestSourceFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{
		// in the order in which they count: bytes, not letters
		"B.go", "a-b.go", "a.go", "a/b.go", "a/testdatas/c.go", "cmd/x y/'main'.go", "go.mod", "go.sum", "openapi.yaml", "tools/go.mod", "tools/go.sum", "ä.go",
		// not source
		"a_test.go", "e2e/control/server.go", "a/testdata/c.go", ".cache/d.go", "a/.hidden.go", "post/node_modules/e.go", "README.md", "docs/openapi.yaml", "tools/act.mod", "checksums.txt",
	} {
		writeFile(t, filepath.Join(dir, name), name)
	}
	// A link may lead anywhere.
	if err := os.Symlink("a.go", filepath.Join(dir, "link.go")); err != nil {
		t.Fatal(err)
	}
	got, err := release.SourceFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"B.go", "a-b.go", "a.go", "a/b.go", "a/testdatas/c.go", "cmd/x y/'main'.go", "go.mod", "go.sum", "openapi.yaml", "tools/go.mod", "tools/go.sum", "ä.go"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("source files (-want +got):\n%s", diff)
	}
	sameDigest(t, dir)
}

// install.sh and the release program must mean the same source by the same number.
func TestDigestOfThisSource(t *testing.T) { sameDigest(t, copyModule(t)) }

// sameDigest asks install.sh, in the words that it has for its user, for the digest of a
// source.
func sameDigest(t *testing.T, dir string) {
	t.Helper()
	want, err := release.Digest(dir)
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("../../install.sh")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "install.sh"), string(script))
	writeFile(t, filepath.Join(dir, release.File), release.Checksums{Version: "v1.2.3", Source: "another"}.String())
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "go"), []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "bash", filepath.Join(dir, "install.sh"), t.TempDir())
	cmd.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "LC_ALL=C.UTF-8"}
	out, err := cmd.CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("but of "+want[:12]+", and the build from source failed")) {
		t.Errorf("the digest is %s; install.sh: %v:\n%s", want, err, out)
	}
}

// Every file that is linked in, for any platform, counts: else a change of it would leave
// the old release in use.
func TestEverythingThatIsBuiltIsSource(t *testing.T) {
	source, err := release.SourceFiles("../..")
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range release.Targets() {
		cmd := exec.CommandContext(t.Context(), "go", "list", "-deps",
			"-json=Dir,Module,GoFiles,EmbedFiles,SFiles,HFiles,CFiles,SysoFiles", "./cmd/...", "./release")
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "GOOS="+target.OS, "GOARCH="+target.Arch, "CGO_ENABLED=0")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		files := 0
		for d := json.NewDecoder(bytes.NewReader(out)); ; {
			var p struct {
				Dir                                                    string
				Module                                                 *struct{ Main bool }
				GoFiles, EmbedFiles, SFiles, HFiles, CFiles, SysoFiles []string
			}
			if err := d.Decode(&p); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if p.Module == nil || !p.Module.Main {
				continue
			}
			for _, name := range slices.Concat(p.GoFiles, p.EmbedFiles, p.SFiles, p.HFiles, p.CFiles, p.SysoFiles) {
				rel, err := filepath.Rel(root, filepath.Join(p.Dir, name))
				if err != nil {
					t.Fatal(err)
				}
				files++
				if !slices.Contains(source, filepath.ToSlash(rel)) {
					t.Errorf("%s: %s is linked in and not counted: add it to sourceFiles, and to source_digest of install.sh", target, rel)
				}
			}
		}
		if files < 50 {
			t.Errorf("%s: go list names %d files only", target, files)
		}
	}
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// copyModule copies the source of this module.
func copyModule(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	names, err := release.SourceFiles("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(names, "LICENSE", release.File) {
		text, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, name), string(text))
	}
	return dir
}

// edit replaces what must be there once in a file.
func edit(t *testing.T, name, old, replacement string) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), old); n != 1 {
		t.Fatalf("%s holds %q %d times", name, old, n)
	}
	writeFile(t, name, strings.Replace(string(text), old, replacement, 1))
}
