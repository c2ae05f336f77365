package nix_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/golden"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
)

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
			golden.Equal(t, "check-args", string(said))
		})
	}
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
				if !strings.Contains(text, want) || !strings.HasPrefix(text, "open its store: ") {
					t.Errorf("%q does not say %q and what failed", text, want)
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
	// What was started dies as soon as the kernel gets to it, and may be a zombie that init
	// has yet to collect.
	for {
		status, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/status")
		if err != nil || strings.Contains(string(status), "State:\tZ") || strings.Contains(string(status), "State:\tX") {
			return
		}
		if time.Since(start) > 20*time.Second {
			t.Fatalf("process %s lives:\n%s", pid, status)
		}
		runtime.Gosched()
	}
}
