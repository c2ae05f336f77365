package main_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/release"
)

func TestEachPlatformGetsItsOwn(t *testing.T) {
	for _, test := range []struct{ system, machine, want string }{
		{"Linux", "x86_64", "linux/amd64"},
		{"Linux", "aarch64", "linux/arm64"},
		{"Darwin", "x86_64", "darwin/amd64"},
		{"Darwin", "arm64", "darwin/arm64"},
		{"Linux", "riscv64", ""},
		{"FreeBSD", "amd64", ""},
	} {
		t.Run(test.system+"-"+test.machine, func(t *testing.T) {
			t.Parallel()
			a := newAction(t)
			a.shim("uname", `case $1 in -s) echo `+test.system+`;; -m) echo `+test.machine+`;; esac`)
			dir := t.TempDir()
			if test.want == "" {
				a.buildable()
				a.install(dir).says(t, 0, "there is no release for "+test.system+" on "+test.machine)
				if got := a.downloads(); got != nil {
					t.Errorf("asked for %v", got)
				}
				return
			}
			osname, arch, _ := strings.Cut(test.want, "/")
			asset := "/" + version + "/" + release.Asset(version, release.Target{OS: osname, Arch: arch})
			a.install(dir).says(t, 0, "nix-builders "+version+", from "+a.server.URL+asset)
			if got, want := installed(t, dir), "nix-builders "+version+" go1.26.0 "+test.want; got != want {
				t.Errorf("installed %q, want %q", got, want)
			}
			if diff := cmp.Diff([]string{asset}, a.downloads()); diff != "" {
				t.Errorf("downloads (-want +got):\n%s", diff)
			}
			if got, want := names(t, dir), "bin doc"; got != want {
				t.Errorf("%s holds %q, want %q", dir, got, want)
			}
		})
	}
}

// Whatever else goes wrong, these bytes are not run: neither they nor, as if nothing had
// happened, those built from source.
func TestWrongChecksumIsRefused(t *testing.T) {
	a := newAction(t)
	log := a.buildable()
	a.mu.Lock()
	for name := range a.assets {
		a.assets[name] = pack(t, "somebody else's")
	}
	a.mu.Unlock()
	dir, cache := t.TempDir(), t.TempDir()
	a.env["RUNNER_TOOL_CACHE"], a.env["GITHUB_ACTIONS"] = cache, "true"
	r := a.install(dir)
	r.says(t, 1, "::error title=nix-builders can not be installed::"+a.server.URL, "Somebody has changed it", "nothing of it was run")
	if strings.Contains(r.printed, "::warning") {
		t.Errorf("it goes on:\n%s", r.printed)
	}
	empty(t, dir)
	empty(t, cache)
	if _, err := os.Stat(log); err == nil {
		t.Error("it was built from source")
	}
	if got := a.downloads(); len(got) != 1 {
		t.Errorf("asked for %v, want one download", got)
	}
}

// A release is for its own source only: that of a commit after it is built.
func TestOtherSourceIsBuilt(t *testing.T) {
	a := newAction(t)
	log := a.buildable()
	a.write("main.go", "package main // and more\n")
	a.env["GOOS"], a.env["GOFLAGS"] = "windows", "-mod=vendor" // the job's, for its own programs
	dir := t.TempDir()
	a.install(dir).says(t, 0,
		"nix-builders source-abc, built from the source in "+a.dir+" with go1.26.0",
		"the source here is not that of the release "+version+", but of "+a.digest()[:12])
	installed(t, dir)
	if got := a.downloads(); got != nil {
		t.Errorf("asked for %v", got)
	}
	said, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(said), " in "+a.dir+" GOOS= GOFLAGS= GOWORK=off\n"; !strings.HasSuffix(got, want) {
		t.Errorf("go was called with %q, want ...%q", got, want)
	}
}

func TestNoReleaseYet(t *testing.T) {
	a := newAction(t)
	a.buildable()
	a.write(release.File, release.Checksums{Version: release.None}.String())
	dir := t.TempDir()
	a.install(dir).says(t, 0, "for there is no release yet")
	installed(t, dir)
}

// A download that fails is tried again where that may help, and then built instead.
func TestDownloadFails(t *testing.T) {
	for _, test := range []struct {
		name  string
		serve func(w http.ResponseWriter, r *http.Request, asset []byte, try int32)
		tries int32
		says  string // empty: it succeeds in the end
	}{
		{"not found", func(w http.ResponseWriter, r *http.Request, _ []byte, _ int32) {
			http.NotFound(w, r)
		}, 1, "404"},
		{"server broken", func(w http.ResponseWriter, _ *http.Request, _ []byte, _ int32) {
			w.WriteHeader(http.StatusInternalServerError)
		}, 3, "500"},
		{"broken once", func(w http.ResponseWriter, _ *http.Request, asset []byte, try int32) {
			if try == 1 {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			w.Write(asset)
		}, 2, ""},
		{"too many requests once", func(w http.ResponseWriter, _ *http.Request, asset []byte, try int32) {
			if try == 1 {
				w.WriteHeader(http.StatusTooManyRequests)
				return
			}
			w.Write(asset)
		}, 2, ""},
		{"hangs", func(_ http.ResponseWriter, r *http.Request, _ []byte, _ int32) {
			<-r.Context().Done()
		}, 3, "timed out"},
		{"hangs in the middle", func(w http.ResponseWriter, r *http.Request, asset []byte, _ int32) {
			w.Header().Set("Content-Length", fmt.Sprint(len(asset)))
			w.Write(asset[:len(asset)/2])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, 3, "timed out"},
		{"ends in the middle", func(w http.ResponseWriter, _ *http.Request, asset []byte, _ int32) {
			w.Header().Set("Content-Length", fmt.Sprint(len(asset)))
			w.Write(asset[:len(asset)/2])
			panic(http.ErrAbortHandler)
		}, 3, "curl"},
		{"sent to another protocol", func(w http.ResponseWriter, r *http.Request, _ []byte, _ int32) {
			http.Redirect(w, r, "ftp://127.0.0.1:1/", http.StatusFound)
		}, 3, "(1)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			a := newAction(t)
			a.buildable()
			var tries atomic.Int32
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				a.mu.Lock()
				asset := a.assets[r.URL.Path]
				a.mu.Unlock()
				test.serve(w, r, asset, tries.Add(1))
			}))
			t.Cleanup(s.Close)
			a.env["SETUP_NIX_BUILDERS_MIRROR"], a.env["GITHUB_ACTIONS"] = s.URL+"/", "true"
			if test.says == "timed out" {
				a.env["SETUP_NIX_BUILDERS_MAX_TIME"] = "1"
			}
			dir := t.TempDir()
			r := a.install(dir)
			if test.says == "" {
				r.says(t, 0, "nix-builders "+version+", from "+s.URL)
			} else {
				r.says(t, 0, "::warning title=nix-builders is built from source::the download of "+s.URL, test.says,
					"nix-builders source-abc, built from the source")
			}
			installed(t, dir)
			if got := tries.Load(); got != test.tries {
				t.Errorf("%d tries, want %d", got, test.tries)
			}
		})
	}
}

func TestNoNetwork(t *testing.T) {
	t.Parallel()
	a := newAction(t)
	a.buildable()
	a.server.Close()
	dir := t.TempDir()
	a.install(dir).says(t, 0, "nix-builders source-abc, built from the source", "the download of "+a.server.URL)
	installed(t, dir)
}

func TestNoCurl(t *testing.T) {
	a := newAction(t)
	a.env["PATH"] = tools(t, a.bin, "shasum")
	a.buildable()
	dir := t.TempDir()
	a.install(dir).says(t, 0, "there is no curl")
	installed(t, dir)
}

func TestNoGo(t *testing.T) {
	a := newAction(t)
	a.env["PATH"] = tools(t, a.bin, "curl", "shasum")
	if err := os.Remove(filepath.Join(a.bin, "go")); err != nil {
		t.Fatal(err)
	}
	a.write("main.go", "package main // changed\n")
	dir := t.TempDir()
	a.install(dir).says(t, 1, "there is no Go here to build from source", "actions/setup-go", "@vX.Y.Z")
	empty(t, dir)
}

// The Go that is there may neither be new enough nor fetch one that is.
func TestGoTooOld(t *testing.T) {
	a := newAction(t)
	if err := os.Remove(filepath.Join(a.bin, "go")); err != nil {
		t.Fatal(err)
	}
	a.write("go.mod", "module example.com/small\n\ngo 1.999.0\n")
	a.env["GOTOOLCHAIN"] = "local"
	a.env["GITHUB_ACTIONS"] = "true"
	dir := t.TempDir()
	a.install(dir).says(t, 1, "requires go >= 1.999.0", "::error title=nix-builders can not be installed::", "it needs 1.999.0 or newer", "actions/setup-go")
	empty(t, dir)
}

func TestAgainIntoTheSameDirectory(t *testing.T) {
	a := newAction(t)
	dir := filepath.Join(t.TempDir(), "a directory", "with 'spaces' & more")
	for range 2 {
		a.install(dir).says(t, 0)
		installed(t, dir)
	}
	a.write("main.go", "package main // changed\n")
	a.buildable()
	a.install(dir).says(t, 0)
	if got, want := installed(t, dir), "nix-builders source-abc go1.26.0 here"; got != want {
		t.Errorf("installed %q, want %q", got, want)
	}
	if got := names(t, dir); got != "bin" {
		t.Errorf("%s holds %q: the licences are of another program, or something was left", dir, got)
	}
}

// The tools of macOS are not GNU's, and its bash is 3.2: what can be had of that here is its
// checksum program, and a bash that keeps to what 3.2 took where it would do otherwise.
func TestLikeMacOS(t *testing.T) {
	a := newAction(t)
	a.shim("uname", `case $1 in -s) echo Darwin;; -m) echo arm64;; esac`)
	a.env["PATH"] = tools(t, a.bin, "curl", "shasum")
	a.env["BASH_COMPAT"] = "3.2"
	a.env["GITHUB_ACTIONS"] = "true"
	dir := t.TempDir()
	a.install(dir).says(t, 0, "::group::Install nix-builders\n::endgroup::\nnix-builders "+version+", from ")
	if got, want := installed(t, dir), "nix-builders "+version+" go1.26.0 darwin/arm64"; got != want {
		t.Errorf("installed %q, want %q", got, want)
	}
	a.install(t.TempDir(), "100%\r\n::error::mine").says(t, 1, "::there is no 100%25%0D%0A::error::mine: ")
}
