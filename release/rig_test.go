package main_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/release"
)

const (
	version = "v1.2.3"
	// patience bounds one run of install.sh that builds nothing.
	patience = 60 * time.Second
)

// An action is a copy of the action as a runner has it, with a server that its releases
// lie on. What the release holds are scripts that run anywhere: install.sh is real, and so
// are its bash and its curl.
type action struct {
	t   *testing.T
	dir string // of the action's files
	env map[string]string
	bin string // first on PATH

	server *httptest.Server
	mu     sync.Mutex
	assets map[string][]byte // guarded by mu
	asked  []string          // guarded by mu: paths that were asked for
}

// newAction has a release for every platform, built from its own source.
func newAction(t *testing.T) *action {
	t.Helper()
	a := &action{t: t, dir: t.TempDir(), bin: t.TempDir(), assets: map[string][]byte{}}
	script, err := os.ReadFile("../install.sh")
	if err != nil {
		t.Fatal(err)
	}
	a.write("install.sh", string(script))
	a.write("go.mod", "module example.com/small\n\ngo 1.26\n")
	a.write("main.go", "package main\n")
	for _, target := range release.Targets() {
		a.assets["/"+version+"/"+release.Asset(version, target)] = pack(t, target.String())
	}
	a.server = httptest.NewServer(a)
	t.Cleanup(a.server.Close)
	a.env = map[string]string{
		"PATH": a.bin + string(os.PathListSeparator) + os.Getenv("PATH"), "HOME": t.TempDir(), "TMPDIR": t.TempDir(),
		"SETUP_NIX_BUILDERS_MIRROR": a.server.URL,
	}
	a.shim("go", "echo 'install.sh called go, and should not have' >&2; exit 1")
	a.publish()
	return a
}

// ServeHTTP serves the assets.
func (a *action) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, r.URL.Path)
	asset, ok := a.assets[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Write(asset)
}

// downloads are the paths that the server was asked for since the last call.
func (a *action) downloads() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer func() { a.asked = nil }()
	return a.asked
}

// publish commits the checksums of the assets as they are now, for the source as it is now.
func (a *action) publish() {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	c := release.Checksums{Version: version, Go: "go1.26.0", Source: a.digest(), Assets: map[string]string{}}
	for at, asset := range a.assets {
		sum := sha256.Sum256(asset)
		c.Assets[path.Base(at)] = hex.EncodeToString(sum[:])
	}
	a.write(release.File, c.String())
}

func (a *action) digest() string {
	a.t.Helper()
	digest, err := release.Digest(a.dir)
	if err != nil {
		a.t.Fatal(err)
	}
	return digest
}

// write writes a file of the action.
func (a *action) write(name, text string) {
	a.t.Helper()
	writeFile(a.t, filepath.Join(a.dir, filepath.FromSlash(name)), text, 0o644)
}

// shim puts a program first on PATH, as a script.
func (a *action) shim(name, script string) {
	a.t.Helper()
	writeFile(a.t, filepath.Join(a.bin, name), "#!/bin/sh\n"+script+"\n", 0o755)
}

// buildable has a go on PATH that takes no time to build the programs from source. What it
// was called with is in its log.
func (a *action) buildable() (log string) {
	a.t.Helper()
	log = filepath.Join(a.t.TempDir(), "log")
	a.shim("go", `
if [ "$1" = env ]; then echo go1.26.0; exit; fi
echo "$* in $(pwd) GOOS=$GOOS GOFLAGS=$GOFLAGS GOWORK=$GOWORK" >>'`+log+`'
test "$1 $2 $3" = "run ./release -programs" || exit 1
printf '#!/bin/sh\necho nix-builders source-abc go1.26.0 here\n' >"$4/nix-builders"
printf '#!/bin/sh\n' >"$4/tailscaled"
cp "$4/tailscaled" "$4/nix-builders-hook"
chmod 755 "$4/nix-builders" "$4/nix-builders-hook" "$4/tailscaled"
ln -s tailscaled "$4/tailscale"`)
	return log
}

// A result is how one run of install.sh ended.
type result struct {
	printed string
	code    int
}

// install runs install.sh with these arguments.
func (a *action) install(args ...string) result {
	a.t.Helper()
	cmd := a.command(args...)
	out, err := cmd.CombinedOutput()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		a.t.Fatalf("install.sh: %v; it printed:\n%s", err, out)
	}
	return result{string(out), cmd.ProcessState.ExitCode()}
}

func (a *action) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(a.t.Context(), patience)
	a.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "bash", append([]string{filepath.Join(a.dir, "install.sh")}, args...)...)
	for _, name := range slices.Sorted(maps.Keys(a.env)) {
		cmd.Env = append(cmd.Env, name+"="+a.env[name])
	}
	cmd.Dir = a.t.TempDir()
	cmd.WaitDelay = time.Second
	return cmd
}

// says wants a run to have ended with this code and to have printed all of these.
func (r result) says(t *testing.T, code int, texts ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("install.sh ended with code %d, want %d", r.code, code)
	}
	for _, text := range texts {
		if !strings.Contains(r.printed, text) {
			t.Errorf("install.sh does not say %q", text)
		}
	}
	if t.Failed() {
		t.Fatalf("install.sh printed:\n%s", r.printed)
	}
}

// installed returns what the programs in DIR/bin say of themselves; they must be there, and
// nothing else.
func installed(t *testing.T, dir string) string {
	t.Helper()
	if got, want := names(t, filepath.Join(dir, "bin")), "nix-builders nix-builders-hook tailscale tailscaled"; got != want {
		t.Fatalf("%s/bin holds %q, want %q", dir, got, want)
	}
	for _, name := range []string{"tailscale", "tailscaled"} {
		if out, err := exec.CommandContext(t.Context(), filepath.Join(dir, "bin", name), "--version").CombinedOutput(); err != nil {
			t.Errorf("%s --version: %v: %s", name, err, out)
		}
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(dir, "bin", "nix-builders"), "version").Output()
	if err != nil {
		t.Errorf("nix-builders version: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// empty wants nothing to have been put into DIR, and nothing to have been left there.
func empty(t *testing.T, dir string) {
	t.Helper()
	if got := names(t, dir); got != "" {
		t.Errorf("%s holds %q, want nothing", dir, got)
	}
}

// names are those of a directory's entries; hidden ones too.
func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func writeFile(t *testing.T, name, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// pack makes an archive with programs that say what they are.
func pack(t *testing.T, platform string) []byte {
	t.Helper()
	var packed bytes.Buffer
	gz := gzip.NewWriter(&packed)
	tw := tar.NewWriter(gz)
	add := func(h tar.Header, text string) {
		h.Size = int64(len(text))
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(tw, text)
	}
	add(tar.Header{Name: "LICENSE", Mode: 0o644}, "MIT")
	add(tar.Header{Name: "nix-builders", Mode: 0o755}, "#!/bin/sh\necho nix-builders "+version+" go1.26.0 "+platform+"\n")
	add(tar.Header{Name: "nix-builders-hook", Mode: 0o755}, "#!/bin/sh\n")
	add(tar.Header{Name: "tailscaled", Mode: 0o755}, "#!/bin/sh\n")
	add(tar.Header{Name: "tailscale", Typeflag: tar.TypeSymlink, Linkname: "tailscaled"}, "")
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := gz.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}
