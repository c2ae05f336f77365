package plan_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/plan"
)

// What Nix 2.26 and 2.34 say; a test on real hosts holds them to it.
const (
	oneBuild = `this derivation will be built:
  /nix/store/2ahl6pbz3jfd4bf1dbvpkz5rhk7r4n9c-part-1.drv
`
	twoBuilds = `these 2 derivations will be built:
  /nix/store/2ahl6pbz3jfd4bf1dbvpkz5rhk7r4n9c-part-1.drv
  /nix/store/8xqv3v0hm6q0c2p5ivq0n1c1bmxh5m2a-fan-in.drv
`
	oneFetch = `this path will be fetched (0.00 MiB download, 0.06 MiB unpacked):
  /nix/store/k3bd1rjvp8zwkfx4b8d2i1g3wbyfq3sv-tools
`
)

func TestMissing(t *testing.T) {
	for _, c := range []struct {
		name, said string
		want       int
	}{
		{"nothing is said", "", 0},
		{"one", oneBuild, 1},
		{"several, and some to fetch", twoBuilds + oneFetch, 2},
		{"only to fetch", oneFetch, 0},
		{"several to fetch", "these 2 paths will be fetched (1.50 MiB download, 4.06 MiB unpacked):\n  /nix/store/a\n  /nix/store/b\n", 0},
		{"a warning", "warning: Git tree '/home/runner/work' is dirty\n", 0},
		{"nobody knows how", "don't know how to build these paths:\n  /nix/store/a\n", 1},
		{"another heading", "to build:\n  /nix/store/a.drv\n", 1},
		{"another list", "these 2 derivations will be built:\n  a\n  b\n", 1},
		{"no line end", strings.TrimSpace(twoBuilds), 2},
		{"a path in a message", "warning: a.drv was built, and will be built:\n", 0},
		{"an endless line", strings.Repeat("x", 1<<20) + "\n" + oneBuild, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := fakeNix(t, c.said, `cat "$0.said" >&2`).Missing(t.Context(), []string{".#a"})
			if err != nil || got != c.want {
				t.Errorf("got %d, %v, want %d", got, err, c.want)
			}
		})
	}
}

// Nix gets installables as they are, behind everything that is an option, and people hear
// what it says but for long lists.
func TestMissingAsks(t *testing.T) {
	var heard []string
	nix := fakeNix(t, "warning: dirty\n"+twoBuilds, `cat "$0.said" >&2; printf '%s\n' "$@" >"$0.args"`)
	nix.Say = func(line string) { heard = append(heard, line) }
	if _, err := nix.Missing(t.Context(), []string{".#a", "nixpkgs#$(id)"}); err != nil {
		t.Fatal(err)
	}
	args, err := os.ReadFile(nix.Program + ".args")
	if err != nil {
		t.Fatal(err)
	}
	if want := "\n--\n.#a\nnixpkgs#$(id)\n"; !strings.HasSuffix(string(args), want) {
		t.Errorf("its arguments are %q, want them to end with %q", args, want)
	}
	if diff := cmp.Diff([]string{"warning: dirty", "these 2 derivations will be built:"}, heard); diff != "" {
		t.Errorf("heard (-want +got):\n%s", diff)
	}
}

func TestMissingFails(t *testing.T) {
	said := "error:\n       … while evaluating\n\n       error: attribute 'my-package' missing\n"
	for _, c := range []struct {
		name        string
		nix         plan.Nix
		installable string
		want        string
	}{
		{"Nix fails", fakeNix(t, said, `cat "$0.said" >&2; exit 1`), ".#a", "attribute 'my-package' missing"},
		{"Nix says no end of it", fakeNix(t, "", `yes "error: no" | head -n 100000 >&2; exit 1`), ".#a", "exit status 1: error: no"},
		{"there is no Nix", plan.Nix{Program: filepath.Join(t.TempDir(), "nix")}, ".#a", "no such file"},
		{"an option", plan.Nix{}, "--option", `installable "--option" begins with a dash`},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := c.nix.Missing(t.Context(), []string{c.installable})
			if err == nil {
				t.Fatalf("got %d, want an error", n)
			}
			if !strings.Contains(err.Error(), c.want) || len(err.Error()) > 2000 {
				t.Errorf("got %q, want it to have %q", err, c.want)
			}
		})
	}
}

func TestMissingWithoutNix(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := (plan.Nix{}).Missing(t.Context(), []string{".#a"}); err == nil || !strings.Contains(err.Error(), "nix is not on PATH") {
		t.Errorf("got %v, want it to say that nix is missing", err)
	}
}

// A Nix that hangs is told to end, also when a process of its own keeps its output open.
func TestMissingIsBounded(t *testing.T) {
	late := errors.New("no answer in time")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, late)
	defer cancel()
	began := time.Now()
	_, err := fakeNix(t, "", `sleep 60 & exec sleep 60`).Missing(ctx, []string{".#a"})
	if !errors.Is(err, late) {
		t.Errorf("got %v, want the cause", err)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
}

// fakeNix is a shell script in Nix's place; said stands in the file $0.said.
func fakeNix(t *testing.T, said, script string) plan.Nix {
	t.Helper()
	program := filepath.Join(t.TempDir(), "nix")
	for name, text := range map[string]string{program: "#!/bin/sh\n" + script + "\n", program + ".said": said} {
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return plan.Nix{Program: program}
}
