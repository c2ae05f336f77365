package testbed_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// leaf is a derivation that tells where it was built and, though in its sandbox every
// user has one number, as whom.
const leaf = `derivation {
	name = "leaf"; inherit system;
	builder = "${builtins.path { path = /opt/bb; name = "bb"; }}/bin/sh";
	PATH = builtins.path { path = /opt/bb; name = "bb"; } + "/bin";
	args = [ "-c" "echo $(cat /lab/hostname) $(awk '{print $2}' /proc/self/uid_map) > $out" ];
}`

func build(t *testing.T, h *testbed.Host, system string) (string, error) {
	t.Helper()
	out, err := h.OutputAs(bounded(t), testbed.Runner, "nix-build", "--no-out-link", "--expr", fmt.Sprintf("let system = %q; in %s", system, leaf))
	if err != nil {
		return "", err
	}
	return output(t, h, testbed.Runner, "cat", out), nil
}

func TestNixIsMultiUser(t *testing.T) {
	cfg := bare(1)
	cfg.NixConf = map[string]string{"builder-1": "extra-platforms = aarch64-linux"}
	l := testbed.Start(t, cfg)
	co, b1 := l.Host(testbed.Coordinator), l.Host("builder-1")

	native := output(t, co, testbed.Root, "nix", "config", "show", "system")
	got, err := build(t, co, native)
	if err != nil {
		t.Fatal(err)
	}
	const nixbld1 = "30001"
	if got != "coordinator "+nixbld1 {
		t.Errorf("built by %q, want nixbld1 on coordinator", got)
	}
	if got := output(t, co, testbed.Runner, "nix", "store", "info", "--json"); !strings.Contains(got, `"trusted":false`) && !strings.Contains(got, `"trusted":0`) {
		t.Errorf("the runner is trusted: %s", got)
	}

	// Only the host that passes for the other architecture builds for it.
	if _, err := build(t, co, "aarch64-linux"); err == nil {
		t.Error("the coordinator built for aarch64-linux")
	}
	if got, err := build(t, b1, "aarch64-linux"); err != nil || got != "builder-1 "+nixbld1 {
		t.Errorf("builder-1 for aarch64-linux: %q, %v", got, err)
	}

	// The daemon comes back, with its configuration read anew.
	output(t, b1, testbed.Root, "sh", "-c", "echo 'max-jobs = 17' >>/etc/nix/nix.conf; kill $(cat /run/nix-daemon.pid)")
	eventually(t, "a daemon with the new configuration", func() bool {
		_, err := build(t, b1, native)
		return err == nil
	})
}

func TestPassesForSystemd(t *testing.T) {
	cfg := bare(0)
	cfg.Systemd = true
	co := testbed.Start(t, cfg).Host(testbed.Coordinator)
	output(t, co, testbed.Root, "test", "-d", "/run/systemd/system")
	output(t, co, testbed.Root, "systemctl", "is-active", "--quiet", "nix-daemon.service")
	before := output(t, co, testbed.Root, "cat", "/run/nix-daemon.pid")
	output(t, co, testbed.Root, "systemctl", "restart", "nix-daemon.service")
	if after := output(t, co, testbed.Root, "cat", "/run/nix-daemon.pid"); after == before {
		t.Errorf("the daemon is %s before and after its restart", before)
	}
	output(t, co, testbed.Runner, "nix", "store", "info") // it answers
	if out, err := co.Output(bounded(t), "systemctl", "restart", "sshd"); err == nil {
		t.Errorf("a service that is not there: %s", out)
	}
}
