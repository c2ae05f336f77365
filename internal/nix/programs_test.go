package nix_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rogpeppe/go-internal/txtar"

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

func TestCheckStoreOpensThePinnedStore(t *testing.T) {
	for _, from := range []string{"trixie", "sid"} {
		t.Run(from, func(t *testing.T) {
			args := filepath.Join(t.TempDir(), "args")
			answer := string(section(t, from, "good.json"))
			p := install(t, `printf '%s\n' "$@" > '`+args+`'; echo started; echo '`+strings.TrimSpace(answer)+`'`)
			got, err := p.CheckStore(t.Context(), machine())
			if err != nil {
				t.Fatal(err)
			}
			want := nix.Store{Version: map[string]string{"trixie": "2.26.3", "sid": "2.34.8"}[from], Trusted: true}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			said, err := os.ReadFile(args)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "check-args", string(said))
		})
	}
}

// section gives a section of a recording of `nix store info`.
func section(t *testing.T, from, name string) []byte {
	t.Helper()
	archive, err := txtar.ParseFile(abs(t, from, "store-info.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range archive.Files {
		if f.Name == name {
			return f.Data
		}
	}
	t.Fatalf("no section %s", name)
	return nil
}

func TestCheckStoreSaysWhatToLookAt(t *testing.T) {
	for name, want := range map[string]string{
		"badkey":  "is not the one the tailnet publishes",
		"nokey":   "is not the one the tailnet publishes",
		"noprog":  "nix-daemon is not where it said",
		"badprog": "is not a nix-daemon that works",
		"refused": "was the builder's tailscale brought up with --ssh?",
		"unreach": "Network is unreachable",
		"unknown": "root's ssh does not know the name",
		"perm":    "in the tailnet policy",
	} {
		for _, from := range []string{"trixie", "sid"} {
			t.Run(name+"/"+from, func(t *testing.T) {
				stderr := filepath.Join(t.TempDir(), "stderr")
				if err := os.WriteFile(stderr, section(t, from, name), 0o644); err != nil {
					t.Fatal(err)
				}
				_, err := install(t, `cat '`+stderr+`' >&2; echo '{"url":"ssh-ng://"}'; exit 1`).CheckStore(t.Context(), machine())
				if err == nil {
					t.Fatal("no error")
				}
				text := err.Error()
				if !strings.Contains(text, want) || !strings.Contains(text, machine().Name) {
					t.Errorf("%q does not say %q and who", text, want)
				}
				if strings.ContainsAny(text, "\n\r") || strings.Contains(text, "@@") || strings.Contains(text, "Internet access") || len(text) > 800 {
					t.Errorf("%q is no short line", text)
				}
				if errors.Is(err, nix.ErrUnusable) {
					t.Errorf("%q counts as final", text)
				}
			})
		}
	}
}

// What Tailscale SSH says comes before the ssh client's own words.
func TestCheckStoreExplainsTailscaleSSH(t *testing.T) {
	stderr := `warning: you don't have Internet access; disabling some network-dependent features
tailscale: tailnet policy does not permit you to SSH to this node
Connection closed by 100.64.0.1 port 22
error: failed to start SSH connection to 'root@coordinator'
`
	_, err := install(t, "cat >&2 <<'END'\n"+stderr+"END\nexit 1\n").CheckStore(t.Context(), machine())
	if err == nil || !strings.Contains(err.Error(), "let the coordinator's tag ssh to the builder's tag as root") {
		t.Errorf("denied: %v", err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, errors.New("no answer within 300ms"))
	defer cancel()
	_, err = install(t, "echo '# Tailscale SSH requires an additional check.' >&2; echo '# To authenticate, visit: https://login.example/a/1' >&2; sleep 600").CheckStore(ctx, machine())
	if err == nil || !strings.Contains(err.Error(), "no answer within") || !strings.Contains(err.Error(), "the action accept") {
		t.Errorf("checked: %v", err)
	}
}

func TestCheckStoreWantsTrust(t *testing.T) {
	for answer, ok := range map[string]bool{
		`{"trusted":true}`: true, `{"trusted":1}`: true, `{}`: true, `{"trusted":null}`: true,
		`{"trusted":false}`: false, `{"trusted":0}`: false, `{"trusted":"yes"}`: false, `[]`: false, ``: false,
	} {
		_, err := install(t, `echo '`+answer+`'`).CheckStore(t.Context(), machine())
		if (err == nil) != ok {
			t.Errorf("%s: %v", answer, err)
		}
	}
}

func TestCheckStoreRefusesAMachineThatCanNotBe(t *testing.T) {
	m := machine()
	m.StoreProgram = "/bin/sh -c"
	if _, err := install(t, `echo '{}'`).CheckStore(t.Context(), m); !errors.Is(err, nix.ErrUnusable) {
		t.Errorf("CheckStore: %v", err)
	}
}

func TestASlowStoreIsGivenUpWithAllThatItStarted(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	p := install(t, `sleep 600 & echo $! > '`+pids+`'; sleep 600`)
	ctx, cancel := context.WithTimeoutCause(t.Context(), 500*time.Millisecond, errors.New("too slow for a test"))
	defer cancel()
	start := time.Now()
	_, err := p.CheckStore(ctx, machine())
	if err == nil || !strings.Contains(err.Error(), "too slow for a test") {
		t.Errorf("CheckStore: %v", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	pid, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	// What was started is dead, or a zombie that init has yet to collect.
	status, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/status")
	if err == nil && !strings.Contains(string(status), "State:\tZ") && !strings.Contains(string(status), "State:\tX") {
		t.Errorf("process %s lives:\n%s", pid, status)
	}
}

func TestNixThatIsNotThere(t *testing.T) {
	p := nix.Programs{Path: t.TempDir()}
	if _, err := p.CheckStore(t.Context(), machine()); err == nil {
		t.Skip("this host has Nix")
	} else if !strings.Contains(err.Error(), "not installed") {
		t.Skip("this host has Nix: ", err)
	}
}
