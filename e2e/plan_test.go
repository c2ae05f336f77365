package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/act"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/image"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// planFlake has what a plan may be about. The host's system stands where SYSTEM is.
const planFlake = `{
  outputs = { self }: let
    make = system: name: from: derivation {
      inherit name system from;
      builder = "${self}/bb/bin/sh";
      args = [ "-c" "echo ${name} > $out" ];
    };
    one = make "SYSTEM" "one" [ ];
  in {
    packages.SYSTEM = {
      inherit one;
      two = make "SYSTEM" "two" [ one ];
      foreign = make "riscv64-linux" "foreign" [ one ];
      imports-foreign = import (make "riscv64-linux" "expression" [ ]);
      broken = throw "this package is broken";
    };
  };
}
`

// Nix alone knows what is left to build, and its wording is its own: so an older and a
// newer one are asked, by the runner's user, as a plan's job asks.
func TestPlanAsksNix(t *testing.T)      { planAsksNix(t, image.Trixie) }
func TestPlanAsksNewerNix(t *testing.T) { planAsksNix(t, image.Sid) }

func planAsksNix(t *testing.T, suite string) {
	lab := startLab(t, testbed.Config{Suite: suite, NixConf: map[string]string{
		// As the action's users have it, who may name a cache of their own.
		testbed.Coordinator: "experimental-features = nix-command flakes\ntrusted-users = root runner",
	}})
	h := lab.Host(testbed.Coordinator)
	t.Log(output(t, h, testbed.Runner, "nix", "--version"))
	system := output(t, h, testbed.Runner, "nix", "config", "show", "system")
	flake := strings.ReplaceAll(planFlake, "SYSTEM", system)
	if err := h.WriteFile(within(t, patience), "/srv/flake/flake.nix", []byte(flake), 0o644); err != nil {
		t.Fatal(err)
	}
	output(t, h, testbed.Root, "cp", "-r", "/opt/bb", "/srv/flake/bb")

	// plan returns what the plan says of need, and what it told people.
	plan := func(env map[string]string, attributes ...string) (needed bool, told string) {
		t.Helper()
		var installables []string
		for _, a := range attributes {
			installables = append(installables, "path:/srv/flake#"+a)
		}
		cmd := h.CommandAs(within(t, patience), testbed.Runner, "nix-builders", "plan", "--installables", strings.Join(installables, "\n"), `{"ubuntu-24.04": 1}`)
		for k, v := range env {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := testbed.Output(cmd)
		if err != nil {
			t.Fatalf("%v\n%s", err, stderr.String())
		}
		switch {
		case strings.HasSuffix(out, "\nneeded=true"):
			return true, stderr.String()
		case !strings.HasSuffix(out, "\nneeded=false"):
			t.Fatalf("the plan says nothing of need:\n%s", out)
		}
		return false, stderr.String()
	}
	want := func(needed bool, words string, env map[string]string, attributes ...string) {
		t.Helper()
		got, told := plan(env, attributes...)
		if got != needed || !strings.Contains(told, words) {
			t.Errorf("for %v: needed is %v, want %v with %q in what it tells:\n%s", attributes, got, needed, words, told)
		}
	}

	want(true, "1 derivation is left", nil, "one")
	want(true, "2 derivations are left", nil, "two")
	want(true, "3 derivations are left", nil, "foreign", "two")

	// What can't be evaluated here is left to the cluster, and people hear why.
	want(true, "this package is broken", nil, "broken")
	want(true, "riscv64-linux", nil, "imports-foreign")
	want(true, "does not provide attribute", nil, "absent")

	built := strings.Fields(output(t, h, testbed.Runner, "nix", "build", "--no-link", "--print-out-paths", "path:/srv/flake#one", "path:/srv/flake#two"))
	if len(built) != 2 {
		t.Fatalf("built %q", built)
	}
	want(false, "Nothing is left to build", nil, "one", "two")
	want(true, "1 derivation is left", nil, "one", "two", "foreign")

	// In a cache is as good as here, if it is a cache that the build will have.
	output(t, h, testbed.Root, append([]string{"nix", "copy", "--no-check-sigs", "--to", "file:///srv/cache"}, built...)...)
	output(t, h, testbed.Root, append([]string{"nix", "store", "delete"}, built...)...)
	want(true, "2 derivations are left", nil, "one", "two")
	want(false, "will be fetched", map[string]string{
		"NIX_BUILDERS_EXTRA_NIX_CONFIG": "substituters = file:///srv/cache\nrequire-sigs = false",
	}, "one", "two")

	// On GitHub a failure is shown beside the run, and never fails the plan.
	_, told := plan(map[string]string{"GITHUB_ACTIONS": "true"}, "broken")
	if !strings.Contains(told, "\n::warning title=Cluster planned unseen::") {
		t.Errorf("no warning for GitHub:\n%s", told)
	}
}

// calling is what people write who want no cluster when there is nothing to build.
const calling = `on: workflow_dispatch
permissions: { contents: read }
jobs:
  build:
    uses: Misaka13514/setup-distributed-nix-builds/.github/workflows/distributed-build.yml@main
    with:
      command: |
        echo "the store has $(nix build --max-jobs 0 --no-link --print-out-paths .#notes)"
        echo "stop-nix-builders is $(command -v stop-nix-builders || echo nowhere)"
      installables: .#notes
      cachix: my-cache
      extra_nix_config: cores = 3
    secrets:
      tailscale_authkey: ${{ secrets.TS_OAUTH_SECRET }}
      cachix_auth_token: ${{ secrets.CACHIX_AUTH_TOKEN }}
`

// When a dry run says that all is there, no builder is started: the command runs on the
// coordinator alone, with Nix and the caches, and needs no tailnet.
func TestPlanSkipsTheCluster(t *testing.T) {
	t.Parallel() // it mostly waits
	b := act.Start(t, act.Config{})
	repo, err := b.Repository(t.Context(), "x86_64-linux")
	if err != nil {
		t.Fatal(err)
	}
	flake := `{ outputs = { self }: { packages.x86_64-linux.notes = builtins.toFile "notes" "no build makes these"; }; }`
	if err := os.WriteFile(filepath.Join(repo, "flake.nix"), []byte(flake), 0o644); err != nil {
		t.Fatal(err)
	}
	r := b.Run(t, act.Workflow{
		Text: calling, Repository: repo,
		Secrets: map[string]string{"TS_OAUTH_SECRET": control.OAuthSecret, "CACHIX_AUTH_TOKEN": "token-of-my-cache"},
	})
	ok, err := r.Wait(within(t, 3*time.Minute))
	if err != nil || !ok {
		t.Fatalf("the run: %v, %v", ok, err)
	}
	log := r.Log()
	for _, want := range []string{
		"Nothing is left to build: the cluster is not needed.",
		"the store has /nix/store/",
		"stop-nix-builders is nowhere",
		"Success - Main Push to Cachix",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has no %q", want)
		}
	}
	for _, no := range []string{"Builder ubuntu-24.04-1", "Lend this runner", "Main Gather the builders", "join the tailnet"} {
		if strings.Contains(log, no) {
			t.Errorf("the log has %q, but no cluster was needed", no)
		}
	}
}
