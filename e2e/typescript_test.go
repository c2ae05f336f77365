package e2e_test

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// A client that openapi-typescript generates from the contract, in another language and by
// others' rules, reads a real cluster and stops it.
func TestTypeScriptClient(t *testing.T) {
	t.Parallel() // it mostly waits
	testbed.Require(t)
	client := compileClient(t)
	lab := startLab(t, testbed.Config{Builders: 2})
	c := newCluster(t, lab, "ts", 2)
	h := lab.Host(testbed.Coordinator)
	unpack := h.Command(within(t, patience), "sh", "-c", "mkdir -p /opt/client && tar -x -C /opt/client")
	unpack.Stdin = bytes.NewReader(client)
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("copy the client: %v\n%s", err, out)
	}
	c.Env["NIX_BUILDERS_MAX_JOBS"] = "2"
	c.up()

	type report struct {
		ID       string   `json:"id"`
		Phase    string   `json:"phase"`
		Ready    []string `json:"ready"`
		Systems  []string `json:"systems"`
		Jobs     []string `json:"jobs"`
		Peaks    []int    `json:"peaks"`
		Stranger int      `json:"stranger"`
		Stopped  string   `json:"stopped"`
		Left     []string `json:"left"`
	}
	names := []string{c.NameOf(testbed.Builder(1)), c.NameOf(testbed.Builder(2))}
	want := report{
		ID: c.Cluster(), Phase: "ready", Ready: names, Stranger: 404, Stopped: "stopped", Left: names,
		Systems: []string{"x86_64-linux", "i686-linux", "x86_64-linux", "i686-linux"},
		Jobs:    []string{"2 at speed 1", "2 at speed 1"}, Peaks: []int{0, 0},
	}
	got := decode[report](t, []byte(output(t, h, testbed.Runner, "node", "/opt/client/out/client.js", c.api())))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what the client saw (-want +got):\n%s", diff)
	}
	c.wantReleased()
	c.leave()
}

// compileClient generates the types, checks the client against them and compiles it. It
// returns what node needs, as a tar.
func compileClient(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("typescript")); err != nil {
		t.Fatal(err)
	}
	contract, err := filepath.Abs("../openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, argv := range [][]string{
		{"npm", "ci", "--no-audit", "--no-fund"},
		{"npx", "--no", "openapi-typescript", contract, "-o", "contract.d.ts"},
		{"npx", "--no", "tsc"},
	} {
		cmd := exec.CommandContext(within(t, 4*patience), argv[0], argv[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", argv, err, out)
		}
	}
	var files bytes.Buffer
	w := tar.NewWriter(&files)
	for _, part := range []string{"out", "package.json", "node_modules/openapi-fetch"} {
		err := filepath.WalkDir(filepath.Join(dir, part), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			name, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
				return err
			}
			_, err = w.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return files.Bytes()
}
