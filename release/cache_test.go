package main_test

import (
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/release"
)

// cached has a tool cache and a platform.
func cached(t *testing.T) (a *action, kept string) {
	t.Helper()
	a = newAction(t)
	a.shim("uname", `case $1 in -s) echo Linux;; -m) echo x86_64;; esac`)
	a.env["RUNNER_TOOL_CACHE"] = filepath.Join(t.TempDir(), "tool cache")
	asset := release.Asset(version, release.Target{OS: "linux", Arch: "amd64"})
	return a, filepath.Join(a.env["RUNNER_TOOL_CACHE"], "setup-distributed-nix-builds", version, asset)
}

func TestToolCache(t *testing.T) {
	a, kept := cached(t)
	a.install(t.TempDir()).says(t, 0, "from "+a.server.URL)
	if got := len(a.downloads()); got != 1 {
		t.Fatalf("%d downloads at first", got)
	}

	dir := t.TempDir()
	a.install(dir).says(t, 0, "from "+kept)
	installed(t, dir)
	if got := a.downloads(); got != nil {
		t.Errorf("asked for %v although it is in the cache", got)
	}

	// What lies there is not trusted, and is not a reason to fail.
	if err := os.Truncate(kept, 100); err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	a.install(dir).says(t, 0, "is damaged: downloading it again", "from "+a.server.URL)
	installed(t, dir)
	a.downloads()
	a.install(t.TempDir()).says(t, 0, "from "+kept)
	if got := a.downloads(); got != nil {
		t.Errorf("asked for %v although the cache was mended", got)
	}
}

func TestManyShareTheToolCache(t *testing.T) {
	a, kept := cached(t)
	var wg sync.WaitGroup
	results, dirs := make([]result, 6), make([]string, 6)
	for i := range results {
		dirs[i] = t.TempDir()
		wg.Go(func() { results[i] = a.install(dirs[i]) })
	}
	wg.Wait()
	for i, r := range results {
		r.says(t, 0, "nix-builders "+version)
		installed(t, dirs[i])
	}
	if got, want := names(t, filepath.Dir(kept)), filepath.Base(kept); got != want {
		t.Errorf("the cache holds %q, want %q", got, want)
	}
	a.downloads()
	a.install(t.TempDir()).says(t, 0, "from "+kept)
}

func TestToolCacheIsReadOnly(t *testing.T) {
	a, kept := cached(t)
	cache := a.env["RUNNER_TOOL_CACHE"]
	if err := os.Mkdir(cache, 0o555); err != nil {
		t.Fatal(err)
	}
	// Root may write anywhere: then it is nobody who runs.
	base, err := os.MkdirTemp("", "nix-builders-install-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	dir := filepath.Join(base, "dir")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var nobody *syscall.SysProcAttr
	if os.Geteuid() == 0 {
		nobody = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		for _, d := range []string{a.dir, a.bin, cache} {
			open(t, d)
		}
		if err := os.Chmod(base, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	cmd := a.command(dir)
	cmd.SysProcAttr, cmd.Dir = nobody, dir
	cmd.Env = append(cmd.Env, "HOME="+dir, "TMPDIR="+dir)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	result{string(out), 0}.says(t, 0, "The archive is not kept: "+filepath.Dir(kept)+" can't be written.", "from "+a.server.URL)
	installed(t, dir)
}

// open lets everybody into a test's directory and those above it.
func open(t *testing.T, dir string) {
	t.Helper()
	for ; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, info.Mode().Perm()|0o055); err != nil {
			t.Fatal(err)
		}
	}
}
