package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// A host that others have set up too is, after the stop, as they left it: what was in its
// files before, and what other steps wrote meanwhile. After leave nothing of the cluster is
// there at all.
func TestRestore(t *testing.T) {
	lab := startLab(t, testbed.Config{Builders: 1})
	c := newCluster(t, lab, "restore", 1)
	h := lab.Host(testbed.Coordinator)
	before := writeUserFiles(t, h)
	processes := len(mustProcesses(t, h))

	c.up()
	for name, marked := range map[string]bool{"/etc/nix/real.conf": true, "/etc/nix/machines": true, "/root/.ssh/config": true} {
		if text := output(t, h, testbed.Root, "cat", name); strings.Contains(text, "nix-builders") != marked {
			t.Errorf("%s while the cluster lives:\n%s", name, text)
		}
	}
	if kind := output(t, h, testbed.Root, "stat", "-c", "%F", "/etc/nix/nix.conf"); kind != "symbolic link" {
		t.Errorf("nix.conf was a symbolic link and is a %s", kind)
	}

	// Another step of the job edits the same files.
	appended := map[string]string{
		"/etc/nix/real.conf": "connect-timeout = 7\n",
		"/etc/nix/machines":  "ssh-ng://third.example x86_64-linux\n",
		"/root/.ssh/config":  "Host later\n  User nobody\n",
	}
	for name, text := range appended {
		output(t, h, testbed.Root, "sh", "-c", `printf %s "$1" >> "$2"`, "sh", text, name)
	}

	c.stop()
	for name, text := range before {
		if diff := cmp.Diff(text+appended[name], string(mustRead(t, h, name))); diff != "" {
			t.Errorf("%s after the stop (-want +got):\n%s", name, diff)
		}
	}
	c.wantReleased()
	c.leave()

	if left := output(t, h, testbed.Root, "sh", "-c", "ls -d /run/nix-builders /usr/local/bin/stop-nix-builders 2>/dev/null || true"); left != "" {
		t.Errorf("left on the host:\n%s", left)
	}
	if now := mustProcesses(t, h); len(now) > processes {
		t.Errorf("%d processes before, now:\n%v", processes, now)
	}
	nodes, err := lab.Control().Nodes(within(t, patience))
	if err != nil {
		t.Fatal(err)
	}
	if len(nodes) > 0 {
		t.Errorf("nodes left on the tailnet: %v", nodes)
	}
}

// Where the files were not there, they are not there afterwards.
func TestRestoreNothing(t *testing.T) {
	lab := startLab(t, testbed.Config{Builders: 1})
	c := newCluster(t, lab, "bare", 1)
	h := lab.Host(testbed.Coordinator)
	output(t, h, testbed.Root, "rm", "-rf", "/etc/nix/machines", "/root/.ssh")

	c.up()
	c.await("ready", func(now apiclient.Cluster) bool { return now.Phase == apiclient.PhaseReady })
	output(t, h, testbed.Root, "test", "-s", "/etc/nix/machines")
	c.stop()
	if left := output(t, h, testbed.Root, "sh", "-c", "ls -d /etc/nix/machines /root/.ssh 2>/dev/null || true"); left != "" {
		t.Errorf("left on the host:\n%s", left)
	}
	c.wantReleased()
	c.leave()
	// Twice does no harm.
	c.leave()
}

// writeUserFiles gives a host files of the user's own, among them a nix.conf that is a link
// and one without an end of line, and returns what they hold.
func writeUserFiles(t *testing.T, h *testbed.Host) map[string]string {
	t.Helper()
	files := map[string]string{
		"/etc/nix/machines": "# mine\nssh-ng://big.example aarch64-linux\n",
		"/root/.ssh/config": "Host *\n  ForwardAgent no\n",
	}
	for name, text := range files {
		if err := h.WriteFile(within(t, patience), name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	output(t, h, testbed.Root, "sh", "-c", "mv /etc/nix/nix.conf /etc/nix/real.conf && ln -s real.conf /etc/nix/nix.conf")
	files["/etc/nix/real.conf"] = string(mustRead(t, h, "/etc/nix/real.conf"))
	return files
}

func mustRead(t *testing.T, h *testbed.Host, name string) []byte {
	t.Helper()
	text, err := h.ReadFile(within(t, patience), name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// mustProcesses are the processes of a host.
func mustProcesses(t *testing.T, h *testbed.Host) []string {
	t.Helper()
	all, err := h.Processes()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range all {
		names = append(names, fmt.Sprint(p))
	}
	return names
}
