package e2e_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// flake.nix is evaluated by a real Nix, for every system. Its nixpkgs is a stand-in that
// takes what the real one takes, so that what is not tested is the build by the real one.
func TestFlake(t *testing.T) {
	testbed.Require(t)
	lab := startLab(t, testbed.Config{Programs: []string{}}) // it needs none
	h := lab.Host(testbed.Coordinator)
	t.Run("evaluated", func(t *testing.T) { evaluateFlake(t, h) })
	t.Run("vendorHash", func(t *testing.T) { checkVendorHash(t, h) })
}

func evaluateFlake(t *testing.T, h *testbed.Host) {
	pack(t, h, "..", "/root/flake", "flake.nix", "go.mod", "go.sum", "cmd")
	pack(t, h, "testdata/nixpkgs", "/root/nixpkgs", ".")
	output(t, h, testbed.Root, "cp", "-a", "/opt/bb", "/root/nixpkgs/bb")
	nix := func(args ...string) string {
		t.Helper()
		return output(t, h, testbed.Root, append([]string{"nix", "--extra-experimental-features", "nix-command flakes"}, append(args,
			"--override-input", "nixpkgs", "path:/root/nixpkgs", "--no-write-lock-file")...)...)
	}

	type derivations struct{ Package, Default string }
	got := decode[map[string]derivations](t, []byte(nix("eval", "--json", "path:/root/flake#packages", "--apply",
		`builtins.mapAttrs (system: p: {
			Package = "${p.nix-builders.name} for ${p.nix-builders.system}";
			Default = if p.default.drvPath == p.nix-builders.drvPath then "the same" else "another";
		})`)))
	want := map[string]derivations{}
	for _, system := range []string{"x86_64-linux", "aarch64-linux", "x86_64-darwin", "aarch64-darwin"} {
		want[system] = derivations{Package: "nix-builders-unknown for " + system, Default: "the same"}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("packages (-want +got):\n%s", diff)
	}
	shells := decode[map[string]string](t, []byte(nix("eval", "--json", "path:/root/flake#devShells", "--apply",
		`builtins.mapAttrs (system: s: s.default.system)`)))
	for system := range want {
		if shells[system] != system {
			t.Errorf("the shell for %s is for %q", system, shells[system])
		}
	}

	out := nix("build", "--no-link", "--print-out-paths", "path:/root/flake")
	if got, want := output(t, h, testbed.Root, "cat", out+"/bin/nix-builders"), "-s -w -X main.version=unknown"; got != want {
		t.Errorf("the package is linked with %q, want %q", got, want)
	}
	nix("build", "--no-link", "path:/root/flake#devShells."+output(t, h, testbed.Root, "nix", "config", "show", "system")+".default")
}

// checkVendorHash holds what nixpkgs' buildGoModule compares the output of `go mod vendor`
// with.
func checkVendorHash(t *testing.T, h *testbed.Host) {
	flake, err := os.ReadFile("../flake.nix")
	if err != nil {
		t.Fatal(err)
	}
	stands := regexp.MustCompile(`vendorHash = "([^"]+)";`).FindSubmatch(flake)
	if stands == nil {
		t.Fatal("flake.nix has no vendorHash")
	}
	vendored := filepath.Join(t.TempDir(), "vendor")
	vendor := exec.CommandContext(within(t, 5*patience), "go", "mod", "vendor", "-o", vendored)
	vendor.Dir, vendor.Env = "..", append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	if out, err := vendor.CombinedOutput(); err != nil {
		t.Fatalf("go mod vendor: %v: %s", err, out)
	}
	pack(t, h, vendored, "/root/vendor", ".")
	hash := output(t, h, testbed.Root, "nix", "--extra-experimental-features", "nix-command", "hash", "path", "/root/vendor")
	if string(stands[1]) != hash {
		t.Errorf("the modules are others than flake.nix says: set its vendorHash to %q", hash)
	}
}

// pack copies files below a directory of this machine to a directory of the host.
func pack(t *testing.T, h *testbed.Host, from, to string, names ...string) {
	t.Helper()
	var packed, said bytes.Buffer
	tar := exec.CommandContext(within(t, patience), "tar", append([]string{"-C", from, "-c"}, names...)...)
	tar.Stdout, tar.Stderr = &packed, &said
	if err := tar.Run(); err != nil {
		t.Fatalf("pack %s of %s: %v: %s", strings.Join(names, ", "), from, err, &said)
	}
	unpack := h.Command(within(t, patience), "sh", "-euc", `mkdir -p "$1" && tar -x -C "$1"`, "sh", to)
	unpack.Stdin = &packed
	if _, err := testbed.Output(unpack); err != nil {
		t.Fatalf("unpack into %s: %v", to, err)
	}
}
