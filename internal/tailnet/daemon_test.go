package tailnet_test

import (
	"cmp"
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/image"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/tailnet"
)

// programs returns the paths of the real tailscale and tailscaled, built once
// and kept in the lab's cache.
func programs(t *testing.T) (cli, daemon string) {
	t.Helper()
	paths, err := findPrograms()
	if err != nil {
		t.Fatal(err)
	}
	return paths[0], paths[1]
}

var findPrograms = sync.OnceValues(func() (paths [2]string, err error) {
	var cache image.Cache
	if cache.Dir, err = cacheDir(); err != nil {
		return paths, err
	}
	module, err := image.FindModule(".")
	if err != nil {
		return paths, err
	}
	combined, err := cache.Tailscale(context.Background(), module)
	if err != nil {
		return paths, err
	}
	// The program is tailscale when called by that name.
	dir, err := os.MkdirTemp("", "tailnet-test-")
	if err != nil {
		return paths, err
	}
	programDir = dir
	paths = [2]string{filepath.Join(dir, "tailscale"), filepath.Join(dir, "tailscaled")}
	for _, p := range paths {
		if err := os.Symlink(combined, p); err != nil {
			return paths, err
		}
	}
	return paths, nil
})

var programDir string // made by findPrograms, removed by TestMain

func TestMain(m *testing.M) {
	code := m.Run()
	if programDir != "" {
		os.RemoveAll(programDir)
	}
	os.Exit(code)
}

func cacheDir() (string, error) {
	if dir := os.Getenv("NIX_BUILDERS_LAB_CACHE"); dir != "" {
		return dir, nil
	}
	return image.DefaultDir()
}

// options are those of a node that a test joins with a tailscaled of its own.
// The socket's path is short, as it must be.
func options(t *testing.T, s *control.Server, hostname, tag string) tailnet.JoinOptions {
	t.Helper()
	dir, err := os.MkdirTemp("", "tn-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	opts := tailnet.JoinOptions{
		Hostname:    hostname,
		Tags:        []string{tag},
		AuthKey:     control.CIKey,
		LoginServer: s.URL(),
		Networking:  tailnet.Userspace,
		Socket:      filepath.Join(dir, "s", "tailscaled.sock"),
		StateDir:    dir,
		Ephemeral:   true,
		NoLogs:      true,
		Timeout:     30 * time.Second,
	}
	opts.Tailscale, opts.Tailscaled = programs(t)
	return opts
}

// join joins and makes sure that the test leaves nothing behind.
func join(t *testing.T, opts tailnet.JoinOptions) *tailnet.Membership {
	t.Helper()
	m, err := tailnet.Join(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Leave(context.Background()) })
	return m
}

// nodes returns the names on the tailnet.
func nodes(t *testing.T, s *control.Server) string {
	t.Helper()
	list, err := s.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, n := range list {
		names = append(names, n.Name)
	}
	return strings.Join(names, " ")
}

// watch looks again and again, until the function that it returns is called, whether any
// process has the secret in its arguments or environment, which is an error. It is one too
// if it never saw `tailscale up` run on the socket, for then it has proved nothing.
func watch(t *testing.T, socket, secret string) (stop func()) {
	t.Helper()
	type scan struct {
		ups   int // looks that saw `tailscale up` run
		leaks []string
	}
	watched, done := make(chan scan), make(chan struct{})
	t.Cleanup(func() { <-watched })
	go func() { // ends with the test at the latest
		defer close(watched)
		var sc scan
		for t.Context().Err() == nil {
			for _, line := range processes(socket) {
				if strings.Contains(line, " up ") {
					sc.ups++
				}
			}
			sc.leaks = slices.AppendSeq(sc.leaks, maps.Values(processes(secret)))
			select {
			case <-done:
				watched <- sc
				return
			default:
			}
		}
	}()
	return func() {
		t.Helper()
		close(done)
		sc := <-watched
		if sc.ups == 0 {
			t.Error("the test did not look while tailscale up ran: it proves nothing")
		}
		if len(sc.leaks) > 0 {
			t.Errorf("processes with the secret in arguments or environment: %q", sc.leaks)
		}
	}
}

// processes returns the command lines of the running processes that have text
// in their command line or their environment, by pid.
func processes(text string) map[int]string {
	found := map[int]string{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		cmdline, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		environ, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		line := strings.ReplaceAll(string(cmdline), "\x00", " ")
		if strings.Contains(line, text) || strings.Contains(string(environ), text) {
			found[pid] = cmp.Or(line, "?")
		}
	}
	return found
}
