package rundir_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/proc"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/rundir"
)

func TestServerIsFound(t *testing.T) {
	root := filepath.Join(t.TempDir(), "run")
	if dirs, err := rundir.Find(root, rundir.Coordinator); err != nil || len(dirs) != 0 {
		t.Fatalf("before: %v, %v", dirs, err)
	}
	d, err := rundir.New(root, "acme/site/42/1", rundir.Coordinator)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Server(); !errors.Is(err, rundir.ErrNone) {
		t.Errorf("without a server: %v", err)
	}
	want := rundir.Server{Cluster: "acme/site/42/1", API: "http://100.64.0.1:8378/v1", Supervisor: proc.ID{PID: 42, Start: "4711"}}
	if err := d.SaveServer(want); err != nil {
		t.Fatal(err)
	}
	dirs, err := rundir.Find(root, rundir.Coordinator)
	if err != nil || len(dirs) != 1 {
		t.Fatalf("found %v, %v", dirs, err)
	}
	got, err := dirs[0].Server()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("server (-want +got):\n%s", diff)
	}
	if dirs, err := rundir.Find(root, rundir.Builder); err != nil || len(dirs) != 0 {
		t.Errorf("builders: %v, %v", dirs, err)
	}
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(root); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// Two processes of a host tell each other of a joining, and what outlives a role stays.
func TestJoining(t *testing.T) {
	root := filepath.Join(t.TempDir(), "run")
	d, err := rundir.New(root, "acme/site/42/1", rundir.Builder)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Joining(); !errors.Is(err, rundir.ErrNone) {
		t.Errorf("without a joining: %v", err)
	}
	want := rundir.Joining{Process: proc.ID{PID: 42, Start: "4711"}, Started: time.Now().UTC().Round(0), Error: "refused"}
	if err := d.SaveJoining(want); err != nil {
		t.Fatal(err)
	}
	got, err := rundir.At(root, "acme/site/42/1", rundir.Builder).Joining()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("joining (-want +got):\n%s", diff)
	}

	if err := d.Save("kept.json", 0o600, 1); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(d.Path("tailscale"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.Clear("kept.json", "other.json"); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(d.Path("")); err != nil || len(left) != 1 || !d.Has("kept.json") {
		t.Errorf("left: %v, %v", left, err)
	}
	if err := d.Clear("other.json"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(root); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("with nothing to keep the directory stays: %v", err)
	}
	if err := d.Clear("kept.json"); err != nil {
		t.Errorf("where nothing is: %v", err)
	}
}

func TestDirectoriesStayInside(t *testing.T) {
	root := t.TempDir()
	seen := make(map[string]string)
	for _, id := range []string{
		"octo/repo/1/1", "octo-repo/1/1", "octo/repo-1/1", "OCTO/repo/1/1", "..", ".", "/", "", "../../etc/passwd",
		"a\x00b", "ünïcode/☃", "a%2Fb", strings.Repeat("x", 512), strings.Repeat("x", 511) + "y",
	} {
		p := rundir.At(root, id, rundir.Builder).Path("")
		rel, err := filepath.Rel(root, p)
		if err != nil || strings.Count(rel, "/") != 1 || !filepath.IsLocal(rel) || len(rel) > 128 || strings.ContainsAny(rel, "\x00 %") {
			t.Errorf("%.20q lies in %s", id, rel)
		}
		if other, taken := seen[strings.ToLower(p)]; taken {
			t.Errorf("%.20q and %.20q share %s", id, other, p)
		}
		seen[strings.ToLower(p)] = id
	}
	if p := rundir.At(root, "octo/repo/1234/1", rundir.Builder).Path(""); !strings.HasPrefix(p, filepath.Join(root, "octo-repo-1234-1-")) {
		t.Errorf("a person can't find octo/repo/1234/1 in %s", p)
	}
}

// Sockets lie in the directory, and are made there in a directory of their own.
func TestSocketsHaveRoom(t *testing.T) {
	for _, stateDir := range []string{"/run/nix-builders", "/var/run/nix-builders"} {
		id := strings.Repeat("a-repository-with-a-long-name/", 9) + "19876543210/12"
		d := rundir.At(stateDir, id, rundir.Coordinator)
		if path := d.Path(".control-1234567890/s"); len(path) > 103 {
			t.Errorf("%s has %d bytes, and 103 are what a socket's path may have", path, len(path))
		}
	}
}
