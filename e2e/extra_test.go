package e2e_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// The lines that a user wants in nix.conf are there for all later steps of the job, in
// either role, and gone after its last; what Nix can't read never gets there.
func TestExtraNixConfig(t *testing.T) {
	t.Parallel() // it mostly waits
	lab := startLab(t, testbed.Config{Builders: 1})
	b1 := testbed.Builder(1)
	const conf = "/etc/nix/nix.conf"
	show := func(j job, host, name string) string {
		t.Helper()
		return output(t, j.Host(host), testbed.Runner, "nix", "config", "show", name)
	}
	// The file's last line has no end, as in files that people write with printf.
	hosts := []string{b1, testbed.Coordinator}
	for _, host := range hosts {
		output(t, lab.Host(host), testbed.Root, "sh", "-c", `printf 'max-silent-time = 77' >>`+conf)
	}
	pristine := newRig(t, lab, "pristine", 0).files(b1)
	back := func(j job, host string) {
		t.Helper()
		if diff := cmp.Diff(pristine, j.files(host)); diff != "" {
			t.Errorf("files of %s are not as they were (-before +after):\n%s", host, diff)
		}
	}

	t.Run("both roles", func(t *testing.T) {
		j := newJob(t, lab, "extra", 1)
		lines := "NIX_BUILDERS_EXTRA_NIX_CONFIG=timeout = 4321\r\n# a comment\nextra-platforms = riscv64-linux\n\n"
		j.join(b1)
		j.join(j.Coordinator)
		b := j.step(b1, []string{lines}, "nix-builders", "builder")
		c := j.coordinator(lines)
		j.wantExit(c, 0)
		for _, host := range hosts {
			if got := show(j, host, "timeout"); got != "4321" {
				t.Errorf("timeout on %s is %s", host, got)
			}
		}
		// The builder's daemon reads them, as the coordinator is told.
		if !strings.Contains(b.Output(), "riscv64-linux") {
			t.Errorf("the builder does not offer what the lines add:\n%s", b.Output())
		}
		// The cluster has a block of its own beside them.
		contains(t, conf, j.must(j.Coordinator, "cat", conf), "extra-platforms = riscv64-linux", "builders = @/etc/nix/machines")
		j.stop()
		j.wantExit(b, 0)
		for _, host := range hosts {
			if got := show(j, host, "timeout"); got != "4321" {
				t.Errorf("after the cluster, timeout on %s is %s; later steps count on it", host, got)
			}
			j.post(host)
			back(j, host)
		}
	})

	t.Run("nonsense", func(t *testing.T) {
		j := newJob(t, lab, "nonsense", 1)
		for lines, why := range map[string]string{
			"this is no line of nix.conf": "syntax error in configuration line 'this is no line of nix.conf'",
			"sandbox = perhaps":           "'sandbox'",
			"include /etc/nix/none.conf":  "/etc/nix/none.conf",
			"# BEGIN nix-builders x":      "markers",
		} {
			j.join(b1)
			p := j.step(b1, []string{"NIX_BUILDERS_EXTRA_NIX_CONFIG=" + lines}, "nix-builders", "builder")
			j.wantExit(p, 1)
			j.says(p, "nix-builders builder: NIX_BUILDERS_EXTRA_NIX_CONFIG: ", why)
			// The builder failed, so it is on the tailnet no more, and has nothing to undo.
			j.clean(pristine)
		}
	})

	// What Nix only warns of, it warns of.
	t.Run("unknown setting", func(t *testing.T) {
		j := newJob(t, lab, "unknown", 1)
		p := j.step(b1, []string{"NIX_BUILDERS_AUTH_KEY=" + control.CIKey, "NIX_BUILDERS_EXTRA_NIX_CONFIG=timeuot = 1"}, "nix-builders", "builder")
		j.awaitLine(p, "looking for the coordinator")
		j.says(p, "unknown setting 'timeuot'")
		j.cancel(p)
		j.post(b1)
		back(j, b1)
	})
}

// Later steps find tailscale though only the action's own directory has it.
func TestTailscaleOnPath(t *testing.T) {
	lab := startLab(t, testbed.Config{Builders: 1})
	b1 := testbed.Builder(1)
	j := newJob(t, lab, "path", 1)
	// As the action installs them: beside one another, and nowhere else.
	j.must(b1, "rm", "/usr/local/bin/tailscale", "/usr/local/bin/tailscaled")
	j.must(b1, "install", "-d", "/opt/action/bin")
	j.must(b1, "cp", "-P", "/opt/lab/bin/nix-builders", "/opt/lab/bin/tailscale", "/opt/lab/bin/tailscaled", "/opt/action/bin")
	p := j.step(b1, []string{"NIX_BUILDERS_AUTH_KEY=" + control.CIKey}, "/opt/action/bin/nix-builders", "join", "--detach", "builder")
	j.wantExit(p, 0)
	b := j.step(b1, nil, "/opt/action/bin/nix-builders", "builder")
	j.awaitLine(b, "looking for the coordinator")
	contains(t, "tailscale status", output(t, j.Host(b1), testbed.Runner, "sudo", "tailscale", "status"), "nix-builder-path")
	if to := j.must(b1, "readlink", "/usr/local/bin/tailscale"); to != "/opt/action/bin/tailscale" {
		t.Errorf("tailscale leads to %s", to)
	}
	j.cancel(b)
	j.post(b1)
	if left := j.must(b1, "sh", "-c", "ls -d /usr/local/bin/tailscale "+"/run/nix-builders 2>/dev/null || true"); left != "" {
		t.Errorf("leave left %s", left)
	}
	j.must(b1, "rm", "-r", "/opt/action")
}
