package e2e_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// A job is a rig whose commands run as on GitHub: as the job's ordinary user, with sudo.
type job struct{ *rig }

func newJob(t *testing.T, lab *testbed.Lab, suffix string, builders int) job {
	j := job{newRig(t, lab, suffix, builders)}
	j.Env["NIX_BUILDERS_AUTH_KEY_FILE"] = "" // it is root's
	return j
}

// step starts a command of the role that the host has; env are NAME=VALUE pairs.
func (j job) step(host string, env []string, argv ...string) *fleet.Process {
	j.t.Helper()
	set := map[string]string{"NIX_BUILDERS_HOSTNAME": "nix-coordinator-" + j.Suffix}
	if host != j.Coordinator {
		set["NIX_BUILDERS_HOSTNAME"] = j.NameOf(host)
	} else {
		var names []string
		for _, b := range j.Builders {
			names = append(names, j.NameOf(b))
		}
		set["NIX_BUILDERS_BUILDERS"] = strings.Join(names, " ")
	}
	maps.Copy(set, pairs(env))
	p, err := j.StartWith(j.t.Context(), host, testbed.Runner, set, argv...)
	if err != nil {
		j.t.Fatal(err)
	}
	j.started = append(j.started, p)
	return p
}

// join runs nix-builders join --detach on a host, which returns at once.
func (j job) join(host string, env ...string) *fleet.Process {
	j.t.Helper()
	role := "builder"
	if host == j.Coordinator {
		role = "coordinator"
	}
	p := j.step(host, append([]string{"NIX_BUILDERS_AUTH_KEY=" + control.CIKey}, env...), "nix-builders", "join", "--detach", role)
	j.wantExit(p, 0)
	return p
}

func (j job) builder(host string, env ...string) *fleet.Process {
	j.t.Helper()
	return j.step(host, env, "nix-builders", "builder")
}

func (j job) coordinator(env ...string) *fleet.Process {
	j.t.Helper()
	return j.step(j.Coordinator, env, "nix-builders", "coordinator")
}

// post is a job's last step.
func (j job) post(host string) string {
	j.t.Helper()
	code, printed := j.as(testbed.Runner, host, "nix-builders", "leave")
	if code != 0 {
		j.t.Errorf("nix-builders leave on %s ended with code %d:\n%s", host, code, printed)
	}
	return printed
}

// cancel does to a process what GitHub's runner does to a cancelled step's, and tells how
// long it took. Only its first signal may be needed.
func (j job) cancel(p *fleet.Process) {
	j.t.Helper()
	begin := time.Now()
	for _, s := range []struct {
		signal syscall.Signal
		window time.Duration
	}{{syscall.SIGINT, 7500 * time.Millisecond}, {syscall.SIGTERM, 2500 * time.Millisecond}, {syscall.SIGKILL, patience}} {
		// As the job's user, who may not signal root's processes.
		if code, printed := j.signalAs(p, s.signal); code != 0 {
			j.t.Fatalf("%v to %s: %s", s.signal, p, printed)
		}
		timer := time.NewTimer(s.window)
		select {
		case <-p.Done():
			timer.Stop()
			if s.signal != syscall.SIGINT {
				j.t.Errorf("%s ended only after %v, %v after the first signal; it printed:\n%s", p, s.signal, time.Since(begin), p.Output())
			}
			j.t.Logf("%s ended %v after the first signal", p, time.Since(begin))
			return
		case <-timer.C:
		}
	}
}

// signalAs signals the one process that the step has become, as the job's user.
func (j job) signalAs(p *fleet.Process, sig syscall.Signal) (code int, printed string) {
	j.t.Helper()
	host, command, _ := strings.Cut(p.String(), ": ")
	argv := strings.Fields(command)
	pids := j.pids(host, "nix-builders", argv[1:]...)
	if len(pids) != 1 {
		j.t.Fatalf("%s has %d processes of %s, want one", host, len(pids), command)
	}
	return j.as(testbed.Runner, host, "kill", fmt.Sprintf("-%d", sig), pids[0])
}

// clean checks that nothing is left: on no host, nor on the tailnet.
func (j job) clean(pristine map[string]string) {
	j.t.Helper()
	if left := j.nodes(); len(left) > 0 {
		j.t.Errorf("still on the tailnet: %v", left)
	}
	for _, h := range j.Lab.Hosts() {
		for _, program := range []string{"nix-builders", "tailscaled", "sudo"} {
			if pids := j.pids(h.Name(), program); len(pids) > 0 {
				j.t.Errorf("%s still runs on %s: %v", program, h.Name(), pids)
			}
		}
		if diff := cmp.Diff(pristine, j.files(h.Name())); diff != "" {
			j.t.Errorf("files of %s are not as they were (-before +after):\n%s", h.Name(), diff)
		}
	}
}

// A workflow's jobs run every command as an ordinary user: the key is given to the step
// that begins to join, and to no other; the rest is as if they were root.
func TestOrdinaryUser(t *testing.T) {
	t.Parallel() // it mostly waits
	lab := startLab(t, testbed.Config{Builders: 2})
	j := newJob(t, lab, "user", 2)
	pristine := j.files(j.Coordinator)
	hosts := append([]string{j.Coordinator}, j.Builders...)
	// By the first GitHub's runner finds a step's processes and ends them with it.
	j.Env["RUNNER_TRACKING_ID"], j.Env["GITHUB_TOKEN"] = "github_1", "ghs_token"
	for _, host := range hosts {
		j.join(host)
	}
	builders := map[string]*fleet.Process{}
	for _, host := range j.Builders {
		builders[host] = j.builder(host)
	}
	// What GitHub's runner reads is the user's, and root's process writes it.
	j.must(j.Coordinator, "install", "-d", "-o", "runner", "/tmp/github")
	j.must(j.Coordinator, "install", "-o", "runner", "-m", "600", "/dev/null", "/tmp/github/output")
	step := j.coordinator("GITHUB_ACTIONS=true", "GITHUB_OUTPUT=/tmp/github/output")
	j.wantExit(step, 0)
	j.says(step, "::notice title=")
	contains(t, "the step's outputs", output(t, j.Host(j.Coordinator), testbed.Runner, "cat", "/tmp/github/output"), "api=http://", "builders_ready=2")
	j.must(j.Coordinator, "rm", "-r", "/tmp/github")
	for _, host := range hosts {
		for _, pid := range strings.Fields(j.must(host, "sh", "-c", `grep -lasE 'RUNNER_TRACKING_ID|GITHUB_TOKEN' /proc/[0-9]*/environ | cut -d/ -f3`)) {
			if !slices.Contains(j.pids(host, "nix-builders", "builder"), pid) {
				t.Errorf("process %s on %s has what is the step's alone: %s", pid, host, j.must(host, "sh", "-c", `tr '\0' ' ' </proc/$0/cmdline`, pid))
			}
		}
		if pids := j.pids(host, "nix-builders", "as-root"); host != j.Coordinator && len(pids) != 1 {
			t.Errorf("%d processes of root's on %s, want one", len(pids), host)
		}
	}
	j.buildsOnBoth()
	j.stop()
	for _, p := range builders {
		j.wantExit(p, 0)
	}
	for _, host := range hosts {
		j.post(host)
	}
	j.clean(pristine)
	if again := j.post(j.Coordinator); strings.TrimSpace(again) != "" {
		t.Errorf("the second leave has something to say: %s", again)
	}
}

// A person cancels the run, or the runner dies: the runner can signal only the step's own
// process, which is not root's, and yet all of it ends in order within the first window.
func TestFrontEnds(t *testing.T) {
	t.Parallel() // it mostly waits
	lab := startLab(t, testbed.Config{Builders: 1})
	b1 := testbed.Builder(1)
	pristine := newRig(t, lab, "pristine", 0).files(b1)
	ends := map[string]func(j job, p *fleet.Process){
		"cancelled": job.cancel,
		"killed": func(j job, p *fleet.Process) {
			if code, printed := j.signalAs(p, syscall.SIGKILL); code != 0 {
				j.t.Fatalf("kill %s: %s", p, printed)
			}
		},
	}
	// gone waits for the end of root's processes, which a front that was killed can't.
	gone := func(j job, host string) {
		j.t.Helper()
		begin := time.Now()
		eventually(j.t, "root's process on "+host+" is gone", func() bool {
			return len(j.pids(host, "nix-builders", "as-root")) == 0
		})
		if took := time.Since(begin); took > window {
			j.t.Errorf("root's process on %s went %v after its front", host, took)
		}
	}

	for how, end := range ends {
		t.Run("builder that nobody has claimed, "+how, func(t *testing.T) {
			j := newJob(t, lab, "look-"+how, 1)
			j.join(b1)
			p := j.builder(b1)
			j.awaitLine(p, "looking for the coordinator")
			end(j, p)
			gone(j, b1)
			j.clean(pristine) // there is nothing that leave would have to do
			j.post(b1)
		})

		t.Run("builder that waits for the tailnet, "+how, func(t *testing.T) {
			j := newJob(t, lab, "wait-"+how, 1)
			j.join(b1, "NIX_BUILDERS_LOGIN_SERVER=http://10.77.0.250:1")
			p := j.builder(b1)
			j.awaitLine(p, "Waiting for the tailnet")
			end(j, p)
			gone(j, b1)
			j.clean(pristine)
		})

		t.Run("builder of a cluster, "+how, func(t *testing.T) {
			j := newJob(t, lab, "claimed-"+how, 1)
			j.join(b1)
			p := j.builder(b1)
			j.join(j.Coordinator)
			j.wantExit(j.coordinator(), 0)
			end(j, p)
			gone(j, b1)
			if got := j.awaitState(b1, "departed"); !strings.Contains(got.Reason, "cancelled") {
				t.Errorf("%s departed for another reason: %s", b1, got.Reason)
			}
			if nodes := j.nodes(); len(nodes) != 1 {
				t.Errorf("on the tailnet are %v, want the coordinator alone", nodes)
			}
			j.stop()
			j.post(j.Coordinator)
			j.clean(pristine)
		})

		t.Run("coordinator that gathers, "+how, func(t *testing.T) {
			j := newJob(t, lab, "gather-"+how, 1)
			j.Builders = append(j.Builders, "builder-2") // who never comes
			b := j.step(b1, []string{"NIX_BUILDERS_AUTH_KEY=" + control.CIKey}, "nix-builders", "builder")
			j.join(j.Coordinator)
			p := j.coordinator()
			j.awaitLine(p, j.NameOf(b1)+" is ready")
			end(j, p)
			j.exitsWithin(b, 0, window)
			gone(j, j.Coordinator)
			j.post(j.Coordinator)
			j.clean(pristine)
		})
	}

	// The step that is the coordinator to its end.
	t.Run("coordinator in the foreground, cancelled", func(t *testing.T) {
		j := newJob(t, lab, "foreground", 1)
		j.join(b1)
		b := j.builder(b1)
		p := j.step(j.Coordinator, []string{"NIX_BUILDERS_AUTH_KEY=" + control.CIKey}, "nix-builders", "coordinator", "--foreground")
		j.awaitLine(p, "Serving until this process is told to end.")
		j.cancel(p)
		j.exitsWithin(b, 0, window)
		j.clean(pristine)
	})

	// Nobody reads what it prints any more, and then it dies: root's part is done all the same.
	t.Run("builder without a reader, killed", func(t *testing.T) {
		j := newJob(t, lab, "unread", 1)
		j.join(b1)
		j.join(j.Coordinator)
		p := j.step(b1, nil, "sh", "-c", "nix-builders builder 2>&1 | true")
		j.wantExit(j.coordinator(), 0)
		pid := j.pids(b1, "nix-builders", "builder")
		j.must(b1, append([]string{"kill", "-KILL"}, pid...)...)
		if got := j.awaitState(b1, "departed"); !strings.Contains(got.Reason, "cancelled") {
			t.Errorf("%s departed for another reason: %s", b1, got.Reason)
		}
		gone(j, b1)
		_ = j.exit(p)
		j.stop()
		j.post(j.Coordinator)
		j.clean(pristine)
	})

	// leave ends a builder that runs.
	t.Run("leave", func(t *testing.T) {
		j := newJob(t, lab, "leave", 1)
		j.join(b1)
		p := j.builder(b1)
		j.awaitLine(p, "looking for the coordinator")
		j.post(b1)
		j.wantExit(p, 130)
		j.clean(pristine)
	})
}

// Without sudo nothing is begun, and the message says what to do. A builder whose user
// keeps its state needs none.
func TestWithoutSudo(t *testing.T) {
	lab := startLab(t, testbed.Config{Builders: 1})
	b1 := testbed.Builder(1)
	key := "NIX_BUILDERS_AUTH_KEY=" + control.CIKey
	j := newJob(t, lab, "nosudo", 1)
	pristine := j.files(b1)

	j.must(b1, "mv", "/etc/sudoers.d/runner", "/root/sudoers")
	for path, want := range map[string]string{
		"/usr/bin":  "sudo does not give it (its message is above; exit status 1): let the user runner run all commands without a password (NOPASSWD), or run it as root",
		"/opt/none": "there is no sudo on PATH: run it as root",
	} {
		for _, argv := range [][]string{{"join", "--detach", "builder"}, {"builder"}, {"coordinator"}} {
			p := j.step(b1, []string{key, "NIX_BUILDERS_BUILDERS=b1"},
				append([]string{"env", "PATH=" + path, "/opt/lab/bin/nix-builders"}, argv...)...)
			j.wantExit(p, 1)
			j.says(p, "nix-builders "+argv[0]+": it needs root, and "+want)
			if strings.Contains(p.Output(), control.CIKey) {
				t.Errorf("%s printed the key", p)
			}
		}
	}
	if got := j.post(b1); strings.TrimSpace(got) != "" {
		t.Errorf("leave, where nothing is, says: %s", got)
	}
	j.clean(pristine)

	p := j.step(b1, []string{key, "NIX_BUILDERS_STATE_DIR=/home/runner/state", "NIX_BUILDERS_TAILSCALE_SOCKET=/home/runner/tailscaled.sock",
		"NIX_BUILDERS_NETWORKING=userspace"}, "nix-builders", "builder")
	j.awaitLine(p, "looking for the coordinator")
	j.cancel(p)
	j.clean(pristine)
	if left := j.must(b1, "find", "/home/runner", "-newer", "/etc/hostname", "-mindepth", "1"); left != "" {
		t.Errorf("left in the user's home: %s", left)
	}
	j.must(b1, "mv", "/root/sudoers", "/etc/sudoers.d/runner") // for the rig's last step
}
