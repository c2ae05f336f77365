package nix_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
)

// install makes a directory with a nix that is the shell script, and a nix-daemon.
func install(t *testing.T, script string) nix.Programs {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"nix": script, "nix-daemon": "exit 1\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return nix.Programs{Path: dir, Dir: dir}
}

// abs gives the absolute path of a recording.
func abs(t *testing.T, parts ...string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(append([]string{"testdata"}, parts...)...))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestGatherFromRecordings(t *testing.T) {
	for _, tc := range []struct {
		from, banner string
		old          bool // it has no `config show`
		want         nix.Facts
	}{
		{"trixie", "nix (Nix) 2.26.3", false, nix.Facts{
			Systems: []string{"x86_64-linux", "aarch64-linux"}, Version: "2.26.3",
			Features: []string{"benchmark", "big-parallel", "nixos-test", "uid-range"}}},
		{"sid", "nix (Nix) 2.34.8", false, nix.Facts{
			Systems: []string{"x86_64-linux", "aarch64-linux"}, Version: "2.34.8",
			Features: []string{"benchmark", "big-parallel", "nixos-test", "uid-range"}}},
		{"darwin", "nix (Determinate Nix 3.11.3) 2.31.2", false, nix.Facts{
			Systems: []string{"aarch64-darwin", "x86_64-darwin"}, Version: "2.31.2", BuildGroup: "nixbld",
			Features: []string{"apple-virt", "benchmark", "big-parallel", "nixos-test"}}},
		{"trixie", "nix (Nix) 2.18.9", true, nix.Facts{
			Systems: []string{"x86_64-linux", "aarch64-linux"}, Version: "2.18.9",
			Features: []string{"benchmark", "big-parallel", "nixos-test", "uid-range"}}},
	} {
		t.Run(tc.want.Version, func(t *testing.T) {
			verb := "config show"
			if tc.old {
				verb = "show-config"
			}
			p := install(t, `
				shift 2
				case "$*" in
				--version) echo '`+tc.banner+`' ;;
				"`+verb+` --json") echo 'warning: x' >&2; cat '`+abs(t, tc.from, "config-show.json")+`' ;;
				*) echo "error: '$1' is not a recognised command" >&2; exit 1 ;;
				esac
			`)
			got, err := p.Gather(t.Context(), discard())
			if err != nil {
				t.Fatal(err)
			}
			if got.Cores < 1 || got.Memory < 64<<20 || got.StoreFree == 0 {
				t.Errorf("the host was not measured: %+v", got)
			}
			if want := filepath.Join(p.Path, "nix-daemon"); got.StoreProgram != want && !strings.HasPrefix(got.StoreProgram, "/nix/") {
				t.Errorf("the store program is %q, want %q", got.StoreProgram, want)
			}
			if diff := cmp.Diff(tc.want, got, cmpopts.IgnoreFields(nix.Facts{}, "Cores", "Memory", "StoreFree", "StoreProgram")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestKVMIsOfferedOnlyIfItWorks(t *testing.T) {
	p := install(t, `
		shift 2
		case "$1" in
		--version) echo 'nix (Nix) 2.34.8' ;;
		*) echo '{"system": {"value": "x86_64-linux"}, "system-features": {"value": ["kvm", "benchmark"]}, "build-users-group": {"value": "no such group"}}' ;;
		esac
	`)
	var log bytes.Buffer
	got, err := p.Gather(t.Context(), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	// No build user may use it, for there is none, wherever this test runs.
	if diff := cmp.Diff([]string{"benchmark"}, got.Features); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !strings.Contains(log.String(), "KVM") {
		t.Errorf("the log does not say why:\n%s", &log)
	}
}

func TestGatherSaysWhatIsWrong(t *testing.T) {
	for name, tc := range map[string]struct{ script, want string }{
		"nix fails":      {"echo 'error: nix.conf:3: bad setting' >&2; exit 1", "nix.conf:3: bad setting"},
		"no JSON":        {`case "$3" in --version) echo nix 2.3;; *) echo nothing;; esac`, "read nix config show"},
		"no system":      {`case "$3" in --version) echo nix 2.3;; *) echo '{}';; esac`, "names no system"},
		"wrong type":     {`case "$3" in --version) echo nix 2.3;; *) echo '{"system": {"value": 3}}';; esac`, "setting system"},
		"no version":     {`case "$3" in --version) echo hello world;; *) echo '{"system": {"value": "a-b"}}';; esac`, "no version"},
		"endless output": {`case "$3" in --version) echo nix 2.3;; *) head -c 5000000 /dev/zero;; esac`, "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := install(t, tc.script).Gather(t.Context(), discard())
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Gather: %v; want it to say %q", err, tc.want)
			}
		})
	}
}

func TestProgramsGetNothingOfTheCallers(t *testing.T) {
	t.Setenv("NIX_CONFIG", "builders = evil")
	t.Setenv("NIX_SSHOPTS", "-oStrictHostKeyChecking=no")
	t.Setenv("SSH_AUTH_SOCK", "/tmp/agent")
	t.Setenv("NIX_REMOTE", "ssh://evil")
	p := install(t, `env >&2; exit 1`)
	_, err := p.CheckStore(t.Context(), machine())
	if err == nil {
		t.Fatal("it did not fail")
	}
	out := filepath.Join(t.TempDir(), "env")
	p = install(t, `env > '`+out+`'; exit 1`)
	_, _ = p.CheckStore(t.Context(), machine())
	env, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"NIX_CONFIG=", "NIX_SSHOPTS=", "SSH_AUTH_SOCK=", "NIX_REMOTE="} {
		if strings.Contains(string(env), name) {
			t.Errorf("nix got %s", name)
		}
	}
	for _, name := range []string{"PATH=" + p.Path, "HOME=/"} {
		if !strings.Contains(string(env), name) {
			t.Errorf("nix did not get %s:\n%s", name, env)
		}
	}
}
