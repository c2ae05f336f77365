package e2e_test

import (
	"strings"
	"syscall"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// The key to the tailnet is in the file that the user put it into, and nowhere else: on no
// command line, in no environment, in no log, in nothing that anybody printed.
func TestSecrets(t *testing.T) {
	lab := startLab(t, testbed.Config{Builders: 1})
	c := newCluster(t, lab, "secrets", 1)
	hosts := []string{testbed.Coordinator, testbed.Builder(1)}
	byEnvironment(t, lab)

	// A guard on each host reads what every process shows of itself, over and over. It
	// has the key from a file, so as not to find itself.
	guards := map[string]*fleet.Process{}
	for _, host := range hosts {
		if err := lab.Host(host).WriteFile(within(t, patience), "/run/wanted", []byte(control.CIKey+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := c.Start(t.Context(), host, testbed.Root, "sh", "-c", `
			while test ! -e /run/enough; do
				for f in $(grep -lasf /run/wanted /proc/[0-9]*/cmdline /proc/[0-9]*/environ); do
					echo "FOUND in $f: $(tr '\0' ' ' <$f 2>/dev/null | head -c 200)"
				done
				rounds=$((rounds+1))
			done
			echo "$rounds rounds"`)
		if err != nil {
			t.Fatal(err)
		}
		guards[host] = p
	}

	c.up()
	c.stop()
	c.wantReleased()
	left := c.leave()
	for _, host := range hosts {
		output(t, lab.Host(host), testbed.Root, "touch", "/run/enough")
		c.wantExit(guards[host], 0)
		seen := guards[host].Output()
		if strings.Contains(seen, "FOUND") || !strings.Contains(seen, " rounds") {
			t.Errorf("the guard on %s saw:\n%s", host, seen)
		}
		// What stays on disk, but for the files that hold it by the user's will.
		if found := output(t, lab.Host(host), testbed.Root, "sh", "-c",
			"grep -rlasf /run/wanted /run /var /etc /tmp /root /usr/local 2>/dev/null | grep -vx -e /run/wanted -e "+fleet.KeyFile+" || true"); found != "" {
			t.Errorf("the key is in files of %s:\n%s", host, found)
		}
	}
	for _, p := range append([]*fleet.Process{c.step}, c.builders[testbed.Builder(1)]) {
		if strings.Contains(p.Output(), control.CIKey) {
			t.Errorf("%s printed the key", p)
		}
	}
	if strings.Contains(left, control.CIKey) {
		t.Error("the server's log has the key")
	}

	// And the guard does see a process that is careless.
	output(t, lab.Host(hosts[0]), testbed.Root, "rm", "/run/enough")
	careless, err := c.Start(t.Context(), hosts[0], testbed.Root, "sh", "-c", `sleep 30; exit "$0"`, control.CIKey)
	if err != nil {
		t.Fatal(err)
	}
	found := output(t, lab.Host(hosts[0]), testbed.Root, "sh", "-c", "grep -lasf /run/wanted /proc/[0-9]*/cmdline || true")
	if found == "" {
		t.Error("the guard does not see a key on a command line")
	}
	_ = careless.Signal(9) // nothing waits for it
}

// byEnvironment gives a builder the key in its environment, as workflows do. It is there no
// longer once the program has read it, though the builder stays for hours.
func byEnvironment(t *testing.T, lab *testbed.Lab) {
	t.Helper()
	b1 := testbed.Builder(1)
	r := newRig(t, lab, "env", 1)
	p := r.builder(b1, "NIX_BUILDERS_AUTH_KEY="+control.CIKey, "NIX_BUILDERS_AUTH_KEY_FILE=")
	r.awaitLine(p, "looking for the coordinator")
	for _, program := range []string{"nix-builders", "tailscaled"} {
		pids := r.pids(b1, program)
		if len(pids) != 1 {
			t.Fatalf("%d processes of %s, want one", len(pids), program)
		}
		environ := r.must(b1, "cat", "/proc/"+pids[0]+"/environ")
		if !strings.Contains(environ, "PATH=") || strings.Contains(environ, control.CIKey) {
			t.Errorf("the environment of %s is shown as %q", program, environ)
		}
	}
	r.signal(p, syscall.SIGINT)
	r.wantExit(p, 130)
	if strings.Contains(p.Output(), control.CIKey) {
		t.Errorf("%s printed the key", p)
	}
}
