package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/called"
)

// program is this one, called by a path: the test's own binary is the program too, when it
// is called so.
func program(t *testing.T, path string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Args[0] = path
	// The environment is another's: what is set in it is no setting of ours.
	cmd.Env = []string{"PATH=/usr/bin:/bin", "NIX_BUILDERS_NONSENSE=1", "NIX_BUILDERS_PORT=x"}
	cmd.Stderr = os.Stderr
	return cmd
}

// serveStore serves a shell script to this host, and returns where.
func serveStore(t *testing.T, script string, flags ...string) (addr string) {
	t.Helper()
	args := append([]string{"serve-store", "--listen", "127.0.0.1:0"}, flags...)
	cmd := program(t, "/x/nix-builders", append(args, "--", "sh", "-c", script)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func TestDialStore(t *testing.T) {
	addr := serveStore(t, "cat; echo $NIX_BUILDERS_NONSENSE")
	dir := t.TempDir()
	for name, args := range map[string][]string{
		"as people call it":        {"dial-store", addr, "-"},
		"as Nix calls it":          {"dial-store", addr, "-", "b1", "--stdio"},
		"in its own directory":     {"dial-store", addr, ".", "b1", "--stdio"},
		"in a directory of no use": {"dial-store", addr, dir, "b1", "--stdio"},
	} {
		cmd := program(t, filepath.Join(dir, "nix-builders"), args...)
		cmd.Stdin = strings.NewReader("hello\n")
		out, err := cmd.Output()
		if err != nil || string(out) != "hello\n1\n" {
			t.Errorf("%s: it said %q, %v", name, out, err)
		}
	}
}

func TestDialStoreThatFails(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, called.DialFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		want string
		code int
	}{
		"nobody is there":    {[]string{"dial-store", "127.0.0.1:1", "-", "b1", "--stdio"}, "dial-store: connect to the builder at 127.0.0.1:1: ", 1},
		"another store":      {[]string{"dial-store", "127.0.0.1:1", "-", "b1", "--stdio", "--store", "/x"}, "want ADDRESS:PORT DIR", 2},
		"no directory":       {[]string{"dial-store", "127.0.0.1:1"}, "want ADDRESS:PORT DIR", 2},
		"a broken directory": {[]string{"dial-store", "127.0.0.1:1", dir}, "read how to connect", 1},
		"to the tailnet":     {[]string{"serve-store", "--listen", "100.64.0.1:1", "cat"}, "an address of the loopback", 2},
		"to everybody":       {[]string{"serve-store", "--listen", ":8379", "cat"}, "an address of the loopback", 2},
		"no program":         {[]string{"serve-store", "--listen", "127.0.0.1:0"}, "want a program", 2},
		"a missing program":  {[]string{"serve-store", "--listen", "127.0.0.1:0", "nonexistent-daemon"}, "nonexistent-daemon", 1},
	} {
		var stderr bytes.Buffer
		cmd := program(t, "/x/nix-builders", tc.args...)
		cmd.Stderr = &stderr
		_ = cmd.Run() // its code says more
		if code := cmd.ProcessState.ExitCode(); code != tc.code || !strings.Contains(stderr.String(), tc.want) || strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("%s: exit code %d, %q; want %d, %q", name, code, stderr.String(), tc.code, tc.want)
		}
	}
}

// Nix ends what it has started with a signal, and waits for its streams to end.
func TestDialStoreIsKilled(t *testing.T) {
	addr := serveStore(t, "echo up; sleep 300")
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGKILL} {
		cmd := program(t, "/x/nix-builders", "dial-store", addr, "-")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, out) // until it ends
		if err := cmd.Wait(); err == nil {
			t.Errorf("%v: it ended well", sig)
		}
	}
}

// What connects to builders links as little as it can, and has its own word for the default.
func TestUnknownLease(t *testing.T) {
	if called.UnknownLease != coordinator.DefaultLease {
		t.Errorf("it is %v, a coordinator's default is %v", called.UnknownLease, coordinator.DefaultLease)
	}
}
