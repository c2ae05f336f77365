package image_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/image"
)

// write makes a file below dir, with the directories above it.
func write(t *testing.T, dir, name, text string) {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestOnceMakesOnce(t *testing.T) {
	c := image.Cache{Dir: filepath.Join(t.TempDir(), "not", "there", "yet")}
	// What a maker that died has left is not taken for an artefact.
	write(t, c.Dir, "thing.partial/rubbish", "x")

	var made atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			dir, err := c.Once(t.Context(), "thing", func(dir string) error {
				made.Add(1)
				return os.WriteFile(filepath.Join(dir, "whole"), nil, 0o644)
			})
			if err != nil {
				t.Error(err)
				return
			}
			var names []string
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Error(err)
			}
			for _, e := range entries {
				names = append(names, e.Name())
			}
			if diff := cmp.Diff([]string{"whole"}, names); diff != "" {
				t.Errorf("artefact (-want +got):\n%s", diff)
			}
		})
	}
	wg.Wait()
	if n := made.Load(); n != 1 {
		t.Errorf("made %d times", n)
	}
}

func TestOnceFails(t *testing.T) {
	c := image.Cache{Dir: t.TempDir()}
	broken := errors.New("broken")
	if _, err := c.Once(t.Context(), "thing", func(string) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
	left, err := filepath.Glob(filepath.Join(c.Dir, "thing*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	if _, err := c.Once(t.Context(), "thing", func(string) error { return nil }); err != nil {
		t.Errorf("the next attempt: %v", err)
	}
}

func TestLockWaitsItsTurn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lock")
	unlock, err := image.Lock(t.Context(), file, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := image.Lock(ctx, file, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a lock that is held: %v", err)
	}
	unlock()
	unlock, err = image.Lock(t.Context(), file, nil)
	if err != nil {
		t.Fatalf("a lock that is free: %v", err)
	}
	unlock()
}

// The file comes and goes with the lock, which must not let two in at a time.
func TestLockIsExclusive(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lock")
	var inside atomic.Int32
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				unlock, err := image.Lock(t.Context(), file, nil)
				if err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d hold the lock", n)
				}
				inside.Add(-1)
				unlock()
			}
		})
	}
	wg.Wait()
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the lock's file: %v", err)
	}
}

func TestFindModule(t *testing.T) {
	root := t.TempDir()
	write(t, root, "go.mod", "module github.com/Misaka13514/setup-distributed-nix-builds\n\ngo 1.26\n")
	write(t, root, "tools/go.mod", "module github.com/Misaka13514/setup-distributed-nix-builds/tools\n")
	for _, dir := range []string{"", "tools"} {
		got, err := image.FindModule(filepath.Join(root, dir))
		if err != nil || got != root {
			t.Errorf("from %q: %q, %v", dir, got, err)
		}
	}
	if got, err := image.FindModule(filepath.Dir(root)); err == nil {
		t.Errorf("outside: %q", got)
	}
}

func TestProgram(t *testing.T) {
	module := t.TempDir()
	write(t, module, "go.mod", "module example.com/m\n\ngo 1.26\n")
	write(t, module, "cmd/hello/main.go", "package main\n\nfunc main() { println(\"hello\") }\n")
	c := image.Cache{Dir: t.TempDir()}
	out := filepath.Join(t.TempDir(), "hello")
	if err := c.Program(t.Context(), module, "./cmd/hello", out); err != nil {
		t.Fatal(err)
	}
	said, err := exec.Command(out).CombinedOutput()
	if err != nil || string(said) != "hello\n" {
		t.Errorf("said %q, %v", said, err)
	}
	// A lab's programs don't change under it.
	if err := c.Program(t.Context(), module, "./cmd/hello", out); !errors.Is(err, os.ErrExist) {
		t.Errorf("over a program that is there: %v", err)
	}
	// What the compiler says is in the error.
	write(t, module, "cmd/hello/main.go", "package main\n\nfunc main() { nonsense() }\n")
	if err := c.Program(t.Context(), module, "./cmd/hello", out+"2"); err == nil || !strings.Contains(err.Error(), "undefined: nonsense") {
		t.Errorf("a program that doesn't compile: %v", err)
	}
}

func TestTools(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "some-tool", "#!/bin/sh\n")
	t.Setenv("PATH", dir)
	if got := image.FindTool("some-tool"); got != "some-tool" {
		t.Errorf("a file that can't be run: %s", got)
	}
	tool := filepath.Join(dir, "some-tool")
	if err := os.Chmod(tool, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := image.FindTool("some-tool"); got != tool {
		t.Errorf("a program on the path: %s", got)
	}
	if missing := image.MissingTools(); !slices.Contains(missing, "mmdebstrap") {
		t.Errorf("missing without a path: %q", missing)
	}
}
