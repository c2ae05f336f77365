package e2e_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// nowhere is a login server that never answers.
const nowhere = "NIX_BUILDERS_LOGIN_SERVER=http://10.77.0.250:1"

// Whatever becomes of a joining in the background, the step that needs it says so at once,
// and leave ends it.
func TestJoining(t *testing.T) {
	t.Parallel() // it mostly waits
	lab := startLab(t, testbed.Config{Builders: 1})
	b1 := testbed.Builder(1)
	pristine := newRig(t, lab, "pristine", 0).files(b1)
	joining := func(j job) (pids []string) { return j.pids(b1, "nix-builders", "as-root", "--detached") }

	t.Run("refused", func(t *testing.T) {
		j := newJob(t, lab, "refused", 1)
		j.join(b1, "NIX_BUILDERS_AUTH_KEY=tskey-auth-wrong")
		p := j.builder(b1)
		j.exitsWithin(p, 1, 10*time.Second)
		j.says(p, "which an earlier step began", "the tailnet refused the key")
		if strings.Contains(p.Output(), "tskey-auth-wrong") {
			t.Errorf("it shows the key:\n%s", p.Output())
		}
		j.clean(pristine)
		// Nothing of it stands in the way of the next.
		next := j.step(b1, []string{"NIX_BUILDERS_AUTH_KEY=" + control.CIKey}, "nix-builders", "builder")
		j.awaitLine(next, "looking for the coordinator")
		j.cancel(next)
		j.clean(pristine)
	})

	t.Run("refused, and a key of the builder's own", func(t *testing.T) {
		j := newJob(t, lab, "ownkey", 1)
		j.join(b1, "NIX_BUILDERS_AUTH_KEY=tskey-auth-wrong")
		p := j.step(b1, []string{"NIX_BUILDERS_AUTH_KEY=" + control.CIKey}, "nix-builders", "builder")
		j.awaitLine(p, "looking for the coordinator")
		j.says(p, "joining anew")
		j.cancel(p)
		j.clean(pristine)
	})

	t.Run("twice", func(t *testing.T) {
		j := newJob(t, lab, "twice", 1)
		j.join(b1, nowhere)
		second := j.step(b1, []string{"NIX_BUILDERS_AUTH_KEY=" + control.CIKey}, "nix-builders", "join", "--detach", "builder")
		j.wantExit(second, 1)
		j.says(second, "is joining the tailnet already", "nix-builders leave")
		if got := joining(j); len(got) != 1 {
			t.Errorf("%d processes join, want the first alone", len(got))
		}

		// Leaving ends it, though it would go on for long.
		begin := time.Now()
		j.post(b1)
		if took := time.Since(begin); took > window {
			t.Errorf("leaving took %v", took)
		}
		j.clean(pristine)
	})

	t.Run("in the foreground, and again", func(t *testing.T) {
		j := newJob(t, lab, "again", 1)
		for range 2 {
			p := j.step(b1, []string{"NIX_BUILDERS_AUTH_KEY=" + control.CIKey}, "nix-builders", "join", "builder")
			j.wantExit(p, 0)
		}
		p := j.builder(b1)
		j.awaitLine(p, "looking for the coordinator")
		j.cancel(p)
		j.clean(pristine)
	})

	// As on a runner without an ordinary user; and with a key that only root can read.
	t.Run("root", func(t *testing.T) {
		j := newJob(t, lab, "root", 1)
		file := map[string]string{"NIX_BUILDERS_HOSTNAME": j.NameOf(b1), "NIX_BUILDERS_AUTH_KEY_FILE": fleet.KeyFile}
		for _, user := range []string{testbed.Root, testbed.Runner} {
			join, err := j.StartWith(t.Context(), b1, user, file, "nix-builders", "join", "--detach", "builder")
			if err != nil {
				t.Fatal(err)
			}
			j.wantExit(join, 0)
			p, err := j.StartWith(t.Context(), b1, user, map[string]string{"NIX_BUILDERS_HOSTNAME": j.NameOf(b1)}, "nix-builders", "builder")
			if err != nil {
				t.Fatal(err)
			}
			j.started = append(j.started, p)
			j.awaitLine(p, "looking for the coordinator")
			j.signal(p, syscall.SIGTERM)
			j.exitsWithin(p, 130, window)
			j.clean(pristine)
		}
	})

	t.Run("killed", func(t *testing.T) {
		j := newJob(t, lab, "killed", 1)
		j.join(b1, nowhere)
		eventually(t, "it has started tailscaled", func() bool { return len(j.pids(b1, "tailscaled")) > 0 })
		j.must(b1, append([]string{"kill", "-KILL"}, joining(j)...)...)
		p := j.builder(b1)
		j.exitsWithin(p, 1, 10*time.Second)
		j.says(p, "which an earlier step began", "died")
		j.clean(pristine)
	})

	t.Run("killed, and nobody asks", func(t *testing.T) {
		j := newJob(t, lab, "silent", 1)
		j.join(b1, nowhere)
		eventually(t, "it has started tailscaled", func() bool { return len(j.pids(b1, "tailscaled")) > 0 })
		j.must(b1, append([]string{"kill", "-KILL"}, joining(j)...)...)
		j.post(b1)
		j.clean(pristine)
	})

	// The tailnet may know the node before tailscaled does; leaving waits for that.
	t.Run("cancelled as the tailnet takes it in", func(t *testing.T) {
		r := newRig(t, lab, "midway", 1)
		for range 3 {
			p := r.builder(b1)
			for deadline := time.Now().Add(patience); len(r.nodes()) == 0 && time.Now().Before(deadline); {
			}
			r.signal(p, syscall.SIGINT)
			r.exitsWithin(p, 130, window)
			job{r}.clean(pristine)
		}
	})

	t.Run("too slow", func(t *testing.T) {
		j := newJob(t, lab, "slow", 1)
		j.join(b1, nowhere, "NIX_BUILDERS_JOIN_TIMEOUT=5")
		p := j.builder(b1)
		j.exitsWithin(p, 1, 20*time.Second)
		j.says(p, "did not get ready in time (5s)")
		j.clean(pristine)
	})

	t.Run("other keys", func(t *testing.T) {
		j := newJob(t, lab, "keys", 1)
		for _, key := range []string{control.OAuthKey(lab.LoginServer()), " " + control.CIKey + "?ephemeral=true&preauthorized=true\n"} {
			j.join(b1, "NIX_BUILDERS_AUTH_KEY="+key)
			p := j.builder(b1)
			j.awaitLine(p, "looking for the coordinator")
			j.cancel(p)
			j.clean(pristine)
		}
	})
}

// The job proves to the tailnet what it is, and no secret is stored anywhere: its token is
// fetched as the job's user, who alone may ask for it.
func TestIdentityToken(t *testing.T) {
	lab := startLab(t, testbed.Config{Builders: 1})
	b1 := testbed.Builder(1)
	pristine := newRig(t, lab, "pristine", 0).files(b1)
	job := func(request string) []string {
		return []string{
			"NIX_BUILDERS_AUTH_KEY=", "GITHUB_ACTIONS=true",
			"NIX_BUILDERS_CLIENT_ID=" + control.FederatedID,
			"ACTIONS_ID_TOKEN_REQUEST_URL=" + control.OIDCRequestURL(lab.LoginServer()),
			"ACTIONS_ID_TOKEN_REQUEST_TOKEN=" + request,
		}
	}

	t.Run("builder", func(t *testing.T) {
		j := newJob(t, lab, "token", 1)
		step := j.join(b1, job(control.OIDCRequestToken)...)
		j.says(step, "::add-mask::eyJ")
		p := j.builder(b1)
		j.awaitLine(p, "looking for the coordinator")
		j.cancel(p)
		j.clean(pristine)
	})

	// Not the job that the identity is for.
	t.Run("pull request", func(t *testing.T) {
		j := newJob(t, lab, "pull", 1)
		j.join(b1, job(control.OIDCPullRequestToken)...)
		p := j.builder(b1)
		j.exitsWithin(p, 1, 15*time.Second)
		j.says(p, "the tailnet refused the key")
		j.clean(pristine)
	})

	t.Run("nobody's token", func(t *testing.T) {
		j := newJob(t, lab, "nobody", 1)
		p := j.step(b1, job("of-nobody"), "nix-builders", "join", "--detach", "builder")
		j.wantExit(p, 1)
		j.says(p, "get the job's identity token: GitHub's token service answers 401")
		j.clean(pristine)
	})
}

// From when join has returned, nobody on the hosts can read a secret from a process or a
// file: not the key, which the first step was given, and not the webhook's, which the
// coordinator's was.
func TestJobSecrets(t *testing.T) {
	t.Parallel() // it mostly waits
	lab := startLab(t, testbed.Config{Builders: 1})
	b1 := testbed.Builder(1)
	const webhook = "whsec_bGFiLXNlY3JldC1vZi10aGUtcmVjZWl2ZXI="
	j := newJob(t, lab, "jobsecret", 2) // the second never comes
	hosts := []string{b1, j.Coordinator}
	hidden := func(when string) {
		t.Helper()
		for _, host := range hosts {
			for _, secret := range []string{control.CIKey, webhook} {
				if err := lab.Host(host).WriteFile(within(t, patience), "/dev/wanted", []byte(secret+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				if found := j.must(host, "sh", "-c", `
					for f in $(grep -lasf /dev/wanted /proc/[0-9]*/cmdline /proc/[0-9]*/environ); do echo "$f: $(tr '\\0' ' ' <$f)"; done
					grep -rlasf /dev/wanted /run /var /etc /tmp /root /home /usr/local 2>/dev/null |
						grep -vx -e `+fleet.KeyFile+` -e '/run/nix-builders/.*/coordinator/webhook-secret'
					true`); found != "" {
					t.Errorf("%s, on %s, a secret is in:\n%s", when, host, found)
				}
			}
		}
	}

	for _, host := range hosts {
		j.join(host)
	}
	hidden("while they join")
	b := j.builder(b1)
	c := j.coordinator("NIX_BUILDERS_WEBHOOK_SECRET="+webhook, "NIX_BUILDERS_WEBHOOK_URL=http://127.0.0.1:9/hook", "NIX_BUILDERS_MIN_BUILDERS=2")
	j.awaitLine(c, j.NameOf(b1)+" is ready")
	hidden("while the coordinator gathers")
	if mode := j.must(j.Coordinator, "sh", "-c", "stat -c '%a %U' /run/nix-builders/*/coordinator/webhook-secret"); mode != "600 root" {
		t.Errorf("the webhook's secret is kept in a file of mode %s", mode)
	}
	j.cancel(c)
	j.exitsWithin(b, 0, window)
	j.post(j.Coordinator)

	// A builder that has the key in its own environment keeps it from others too.
	p := j.step(b1, []string{"NIX_BUILDERS_AUTH_KEY=" + control.CIKey}, "nix-builders", "builder")
	j.awaitLine(p, "looking for the coordinator")
	hidden("while a builder with a key looks for its coordinator")
	j.signal(p, syscall.SIGINT)
	j.wantExit(p, 130)
	for _, p := range j.started {
		if strings.Contains(p.Output(), control.CIKey) || strings.Contains(p.Output(), webhook) {
			t.Errorf("%s printed a secret:\n%s", p, p.Output())
		}
	}
}
