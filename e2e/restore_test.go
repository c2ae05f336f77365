package e2e_test

import (
	"maps"
	"path/filepath"
	"slices"
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
	t.Parallel() // it mostly waits
	lab := startLab(t, testbed.Config{Builders: 1})
	c := newCluster(t, lab, "restore", 1)
	h := lab.Host(testbed.Coordinator)
	before := writeUserFiles(t, h)
	modes := fileModes(t, h, before)
	processes := map[string][]string{}
	for _, h := range lab.Hosts() {
		processes[h.Name()] = programs(t, h)
	}

	c.up()
	for name, marked := range map[string]bool{"/etc/nix/real.conf": true, "/etc/nix/machines": true, "/root/.ssh/config": true, "/etc/hosts": true} {
		if text := output(t, h, testbed.Root, "cat", name); strings.Contains(text, "nix-builders") != marked {
			t.Errorf("%s while the cluster lives:\n%s", name, text)
		}
	}
	// The name that the workflow gave is known to everyone here, though the tailnet has
	// another spelling of it.
	name := c.NameOf(testbed.Builder(1))
	if line := output(t, h, "runner", "getent", "hosts", name); !strings.HasSuffix(line, name) {
		t.Errorf("getent hosts %s: %s", name, line)
	}
	if kind := output(t, h, testbed.Root, "stat", "-c", "%F", "/etc/nix/nix.conf"); kind != "symbolic link" {
		t.Errorf("nix.conf was a symbolic link and is a %s", kind)
	}

	// Another step of the job edits the same files, one at its beginning, the others at
	// their ends.
	first := "connect-timeout = 7\n"
	output(t, h, testbed.Root, "sh", "-c", `{ printf %s "$1"; cat "$2"; } >/tmp/edited && cat /tmp/edited >"$2"`, "sh", first, "/etc/nix/real.conf")
	want := map[string]string{"/etc/nix/real.conf": first + before["/etc/nix/real.conf"]}
	for name, last := range map[string]string{
		"/etc/nix/machines": "ssh-ng://third.example x86_64-linux\n",
		"/root/.ssh/config": "Host later\n  User nobody\n",
		"/etc/hosts":        "192.0.2.7 elsewhere.example\n",
	} {
		output(t, h, testbed.Root, "sh", "-c", `printf %s "$1" >> "$2"`, "sh", last, name)
		want[name] = before[name] + last
	}

	c.stop()
	for name, text := range want {
		if diff := cmp.Diff(text, string(mustRead(t, h, name))); diff != "" {
			t.Errorf("%s after the stop (-want +got):\n%s", name, diff)
		}
	}
	if diff := cmp.Diff(modes, fileModes(t, h, before)); diff != "" {
		t.Errorf("owners and modes after the stop (-before +after):\n%s", diff)
	}
	c.wantReleased()
	// Later steps may need the tailnet: the coordinator stays on it.
	if got := nodesOf(t, lab); !cmp.Equal(got, []string{"nix-coordinator-restore"}) {
		t.Errorf("nodes after the stop: %v, want the coordinator's", got)
	}
	c.leave()

	for _, h := range lab.Hosts() {
		if left := output(t, h, testbed.Root, "sh", "-c", "ls -d /run/nix-builders /usr/local/bin/stop-nix-builders 2>/dev/null || true"); left != "" {
			t.Errorf("left on %s:\n%s", h.Name(), left)
		}
		if diff := cmp.Diff(processes[h.Name()], programs(t, h)); diff != "" {
			t.Errorf("processes of %s (-before +after):\n%s", h.Name(), diff)
		}
		if links := output(t, h, testbed.Root, "ls", "/sys/class/net"); strings.Contains(links, "tailscale") {
			t.Errorf("the tailnet's device is left on %s: %s", h.Name(), links)
		}
	}
	if left := nodesOf(t, lab); len(left) > 0 {
		t.Errorf("nodes left on the tailnet: %v", left)
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
	conf := strings.TrimSuffix(string(mustRead(t, h, "/etc/nix/real.conf")), "\n")
	output(t, h, testbed.Root, "sh", "-c", `printf %s "$1" >/etc/nix/real.conf`, "sh", conf)
	files["/etc/nix/real.conf"] = conf
	files["/etc/hosts"] = string(mustRead(t, h, "/etc/hosts"))
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

// fileModes are the modes and owners of files, and whether nix.conf is a link, by name.
func fileModes(t *testing.T, h *testbed.Host, files map[string]string) map[string]string {
	t.Helper()
	modes := map[string]string{}
	for _, name := range append(slices.Collect(maps.Keys(files)), "/etc/nix/nix.conf") {
		modes[name] = output(t, h, testbed.Root, "stat", "-c", "%A %U:%G", name)
	}
	return modes
}

// programs are what runs on a host, without what makes two runs of a program differ.
// Processes that are about to end, as a connection's to the Nix daemon, are waited for.
func programs(t *testing.T, h *testbed.Host) (names []string) {
	t.Helper()
	eventually(t, "a single process of Nix on "+h.Name(), func() bool {
		all, err := h.Processes()
		if err != nil {
			t.Fatal(err)
		}
		names = nil
		daemons := 0
		for _, p := range all {
			names = append(names, p.Argv[0])
			if filepath.Base(p.Argv[0]) == "nix-daemon" {
				daemons++
			}
		}
		return daemons == 1
	})
	slices.Sort(names)
	return names
}

// nodesOf are the names of all nodes of the lab's tailnet.
func nodesOf(t *testing.T, lab *testbed.Lab) (names []string) {
	t.Helper()
	nodes, err := lab.Control().Nodes(within(t, patience))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		names = append(names, n.Name)
	}
	return names
}
