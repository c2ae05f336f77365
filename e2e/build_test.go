package e2e_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// A step of a workflow runs a plain nix build, as a user whom Nix does not trust. It is
// built on the builders, each of which has a part in it; a build that fails says why, as if
// it had failed here; and when the builders are released the same command builds here.
func TestBuild(t *testing.T) {
	const arm = "builder-2" // passes for an aarch64-linux as well
	lab := startLab(t, testbed.Config{
		Builders: 3,
		NixConf:  map[string]string{arm: "extra-platforms = aarch64-linux"},
	})
	c := newCluster(t, lab, "build", 3)
	c.Env["NIX_BUILDERS_MAX_JOBS"] = "2"
	c.up()

	t.Run("every builder has a part", func(t *testing.T) {
		p := c.build("fan-in.nix") // 12 leaves for 6 slots
		where := c.where(p)
		if len(where) != 13 {
			t.Errorf("12 leaves and a fan-in are in the output as %v", where)
		}
		if diff := cmp.Diff(c.Builders, hostsOf(where)); diff != "" {
			t.Errorf("hosts that built (-want +got):\n%s", diff)
		}
		co := lab.Host(c.Coordinator)
		output(t, co, testbed.Runner, "nix-store", "--check-validity", c.built(p))
		output(t, co, testbed.Root, "nix-store", "--verify-path", c.built(p))
	})

	t.Run("many more jobs than slots", func(t *testing.T) {
		where := c.where(c.build("fan-in.nix", "--arg", "leaves", "30", "--argstr", "seconds", "0"))
		if len(where) != 31 {
			t.Errorf("30 leaves and a fan-in are in the output as %v", where)
		}
		if slices.Contains(hostsOf(where), c.Coordinator) {
			t.Errorf("with --max-jobs 0 the coordinator built: %v", where)
		}
	})

	t.Run("another architecture", func(t *testing.T) {
		where := c.where(c.build("fan-in.nix", "--argstr", "system", "aarch64-linux", "--arg", "leaves", "3", "--argstr", "seconds", "0"))
		if diff := cmp.Diff([]string{arm}, hostsOf(where)); diff != "" {
			t.Errorf("hosts that built for aarch64-linux (-want +got):\n%s", diff)
		}
	})

	t.Run("a build that fails", func(t *testing.T) {
		p := c.build("fails.nix")
		c.wantExit(p, 1)
		for _, want := range []string{"> the compiler is unhappy with line 42", "failed with exit code 3"} {
			if !strings.Contains(p.Output(), want) {
				t.Errorf("nix build does not say %q:\n%s", want, p.Output())
			}
		}
	})

	t.Run("here, after the stop", func(t *testing.T) {
		c.stop()
		c.wantReleased()
		p := c.buildAnywhere("fan-in.nix", "--arg", "leaves", "2", "--argstr", "seconds", "0")
		if diff := cmp.Diff([]string{c.Coordinator}, hostsOf(c.where(p))); diff != "" {
			t.Errorf("hosts that built (-want +got):\n%s", diff)
		}
		if strings.Contains(p.Output(), "ssh") {
			t.Errorf("Nix still thinks of the builders:\n%s", p.Output())
		}
	})
}
