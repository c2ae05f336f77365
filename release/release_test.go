package main_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/release"
)

// buildTime bounds a build of the programs where Go has no cache yet.
const buildTime = 15 * time.Minute

// Two people build the same release, each in a directory and with settings of his own, and
// get the same bytes; and these are what a user gets. Other platforms are for `make
// reproducible`: they take longer.
func TestReleaseFromTwoDirectories(t *testing.T) {
	const version = "v0.0.0-test"
	program := buildRelease(t)
	source, made := make([]string, 2), make([]string, 2)
	for i := range made {
		source[i], made[i] = copyModule(t), t.TempDir()
		cmd := bounded(t, program, "-version", version, "-o", made[i], "-platforms", release.Host().String(), "-write")
		cmd.Dir = filepath.Join(source[i], "release") // anywhere in it
		if i == 1 {
			cmd.Env = append(os.Environ(), "GOFLAGS=-tags=sometag", "GOAMD64=v3", "CGO_ENABLED=1", "GOEXPERIMENT=jsonv2", "TZ=Asia/Tokyo", "LC_ALL=C")
		}
		cmd.Stderr = t.Output()
		said, err := cmd.Output()
		if err != nil {
			t.Fatalf("release: %v", err)
		}
		for _, name := range []string{filepath.Join(made[i], "checksums.txt"), filepath.Join(source[i], release.File)} {
			text, err := os.ReadFile(name)
			if diff := cmp.Diff(string(said), string(text)); err != nil || diff != "" {
				t.Errorf("%s: %v (-printed +written):\n%s", name, err, diff)
			}
		}
	}
	one, other := files(t, made[0]), files(t, made[1])
	asset := release.Asset(version, release.Host())
	if diff := cmp.Diff([]string{"checksums.txt", asset}, slices.Sorted(maps.Keys(one))); diff != "" {
		t.Fatalf("made (-want +got):\n%s", diff)
	}
	for name, text := range one {
		if !bytes.Equal(text, other[name]) {
			t.Errorf("%s: two builds, two results", name)
		}
	}
	holds(t, one[asset], version)

	// What a user gets of it.
	mux := http.NewServeMux()
	mux.Handle("/"+version+"/", http.StripPrefix("/"+version+"/", http.FileServer(http.Dir(made[0]))))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	dir := t.TempDir()
	cmd := bounded(t, "bash", filepath.Join(source[0], "install.sh"), dir)
	cmd.Env = append(os.Environ(), "SETUP_NIX_BUILDERS_MIRROR="+server.URL, "RUNNER_TOOL_CACHE=", "GITHUB_ACTIONS=")
	out, err := cmd.Output()
	if want := "nix-builders " + version + ", from " + server.URL + "/" + version + "/" + asset; err != nil || !strings.HasPrefix(string(out), want) {
		t.Fatalf("install.sh: %v: %q, want %q...", err, out, want)
	}
	says(t, filepath.Join(dir, "bin"), version)
	if _, err := os.Stat(filepath.Join(dir, "doc", "licences", "go", "LICENSE")); err != nil {
		t.Error(err)
	}
}

// Without a release the same programs come from the runner's Go, whatever the job has set
// for its own.
func TestBuildFromSource(t *testing.T) {
	source := copyModule(t)
	writeFile(t, filepath.Join(source, release.File), release.Checksums{Version: release.None}.String(), 0o644)
	dir := t.TempDir()
	cmd := bounded(t, "bash", filepath.Join(source, "install.sh"), dir)
	cmd.Env = append(os.Environ(), "GOOS=plan9", "GOARCH=mips", "GOFLAGS=-mod=vendor", "GOWORK=/nowhere/go.work", "GITHUB_ACTIONS=", "RUNNER_TOOL_CACHE=")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("install.sh: %v:\n%s", err, out)
	}
	digest, err := release.Digest(source)
	if err != nil {
		t.Fatal(err)
	}
	if want := "nix-builders source-" + digest[:12] + ", built from the source in " + source + " with go1."; !strings.Contains(string(out), want) {
		t.Errorf("install.sh says %q, want %q", out, want)
	}
	says(t, filepath.Join(dir, "bin"), "source-"+digest[:12])
}

func TestFlags(t *testing.T) {
	program := buildRelease(t)
	for _, test := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"-h"}, 0, "usage: go run ./release -version V -o DIR"},
		{nil, 1, "needs -version and -o; -h tells more"},
		{[]string{"-version", "v1.2.3"}, 1, "needs -version and -o"},
		{[]string{"-version", "1.2.3", "-o", t.TempDir()}, 1, "want one such as v1.2.3"},
		{[]string{"-version", "v1.2.3", "-o", t.TempDir(), "-platforms", "windows/amd64"}, 1, `no releases for the platform "windows/amd64"`},
		{[]string{"all"}, 1, `"all" is not a flag`},
		{[]string{"-nonsense"}, 1, "-nonsense"},
	} {
		cmd := bounded(t, program, test.args...)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != test.code || !strings.Contains(string(out), test.says) {
			t.Errorf("release %q ended with code %d and said %q, want %d and %q", test.args, code, out, test.code, test.says)
		}
	}
	cmd := bounded(t, program, "-digest")
	out, err := cmd.Output()
	if want, _ := release.Digest(".."); err != nil || string(out) != want+"\n" {
		t.Errorf("release -digest: %v: %q, want %q", err, out, want)
	}
	cmd = bounded(t, program, "-digest")
	cmd.Dir = t.TempDir()
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "change to it") {
		t.Errorf("release -digest elsewhere: %v: %q", err, out)
	}
}

// buildRelease builds the release program as `go run` does: the race detector makes a slow
// compressor.
func buildRelease(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "release")
	if out, err := bounded(t, "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}

// bounded is a command that does not outlive the test.
func bounded(t *testing.T, name string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(t.Context(), buildTime)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second
	return cmd
}

// copyModule copies the source of this module, and what a release is made with.
func copyModule(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	names, err := release.SourceFiles("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(names, "LICENSE", release.File, "install.sh") {
		text, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, name), string(text), 0o644)
	}
	return dir
}

// holds looks into a release.
func holds(t *testing.T, asset []byte, version string) {
	t.Helper()
	dir := t.TempDir()
	gz, err := gzip.NewReader(bytes.NewReader(asset))
	if err != nil {
		t.Fatal(err)
	}
	if gz.Name != "" || !gz.ModTime.IsZero() {
		t.Errorf("the archive says who made it and when: %+v", gz.Header)
	}
	var names []string
	for r := tar.NewReader(gz); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" || !h.ModTime.Equal(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)) {
			t.Errorf("%s is %s's of %v", h.Name, h.Uname, h.ModTime)
		}
		if !strings.Contains(h.Name, "/") {
			names = append(names, h.Name)
		}
		if h.Typeflag == tar.TypeSymlink {
			if err := os.Symlink(h.Linkname, filepath.Join(dir, h.Name)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, h.Name), string(text), h.FileInfo().Mode())
	}
	if diff := cmp.Diff([]string{"LICENSE", "VERSIONS", "nix-builders", "nix-builders-hook", "tailscaled", "tailscale"}, names); diff != "" {
		t.Errorf("the archive holds (-want +got):\n%s", diff)
	}
	for _, pattern := range []string{"go/LICENSE", "go/PATENTS", "tailscale.com@v*/LICENSE", "tailscale.com@v*/PATENTS", "github.com/google/uuid@v*/LICENSE"} {
		if found, err := filepath.Glob(filepath.Join(dir, "licences", pattern)); err != nil || len(found) == 0 {
			t.Errorf("the archive lacks the licence %s", pattern)
		}
	}
	says(t, dir, version)
}

// says wants the programs in a directory to run and to be what they should.
func says(t *testing.T, dir, version string) {
	t.Helper()
	m, err := release.Open(t.Context(), ".", io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ program, arg, says string }{
		{"nix-builders", "version", "nix-builders " + version + " go1."},
		{"tailscale", "version", strings.TrimPrefix(m.Tailscale, "v") + "\n"},
		{"tailscaled", "--version", strings.TrimPrefix(m.Tailscale, "v") + "\n"},
	} {
		out, err := exec.CommandContext(t.Context(), filepath.Join(dir, test.program), test.arg).Output()
		if err != nil || !strings.HasPrefix(string(out), test.says) {
			t.Errorf("%s %s: %v: %q, want %q", test.program, test.arg, err, out, test.says)
		}
	}
	// The daemon is the daemon, and the client the client.
	if out, _ := exec.CommandContext(t.Context(), filepath.Join(dir, "tailscaled"), "--help").CombinedOutput(); !strings.Contains(string(out), "-tun") {
		t.Errorf("tailscaled --help:\n%s", out)
	}
}

// files are those of a directory.
func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	all := make(map[string][]byte)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if all[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return all
}
