package e2e_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// A rig is one of several stories on one lab: a [cluster] whose end clears the hosts for
// the next story, and words for what people and kernels do to processes.
type rig struct {
	*cluster
	started []*fleet.Process // all but the ones that ran to their end in one call
}

// newRig begins a story. Suffix is also its name among the hosts' names.
func newRig(t *testing.T, lab *testbed.Lab, suffix string, builders int) *rig {
	r := new(rig)
	t.Cleanup(r.clear)
	r.cluster = newCluster(t, lab, suffix, builders)
	return r
}

// clear ends what a story that failed half way has left running.
func (r *rig) clear() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, p := range r.started {
		select {
		case <-p.Done():
		default:
			_ = p.Signal(syscall.SIGKILL) // it may just end
			_, _ = p.Wait(ctx)
		}
	}
	for _, h := range r.Lab.Hosts() {
		if h.Alive() {
			if err := h.Run(ctx, "nix-builders", "leave"); err != nil {
				r.t.Errorf("clear %s: %v", h.Name(), err)
			}
		}
	}
}

// builder starts the builder of a host; env are NAME=VALUE pairs over the run's.
func (r *rig) builder(host string, env ...string) *fleet.Process {
	r.t.Helper()
	p := r.startBuilder(host, pairs(env))
	r.started = append(r.started, p)
	return p
}

// coordinator starts the coordinator's step.
func (r *rig) coordinator(env ...string) *fleet.Process {
	r.t.Helper()
	p := r.startCoordinator(pairs(env))
	r.started = append(r.started, p)
	return p
}

// foreground starts a coordinator that serves in its own process.
func (r *rig) foreground() *fleet.Process {
	r.t.Helper()
	p := r.startCoordinator(nil, "--foreground")
	r.started = append(r.started, p)
	return p
}

// ready starts everybody and waits until the cluster is ready.
func (r *rig) ready(env ...string) map[string]*fleet.Process {
	r.t.Helper()
	builders := map[string]*fleet.Process{}
	for _, host := range r.Builders {
		builders[host] = r.builder(host, env...)
	}
	r.wantExit(r.coordinator(env...), 0)
	return builders
}

// as runs a command on a host to its end, with the run's environment.
func (r *rig) as(user, host string, argv ...string) (code int, printed string) {
	r.t.Helper()
	p, err := r.Start(r.t.Context(), host, user, argv...)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.exit(p), p.Output()
}

// must runs a command on a host as root; it has to succeed.
func (r *rig) must(host string, argv ...string) string {
	r.t.Helper()
	return output(r.t, r.Host(host), testbed.Root, argv...)
}

// count is how many lines a command prints on a host.
func (r *rig) count(host, shell string) int {
	r.t.Helper()
	n, err := strconv.Atoi(r.must(host, "sh", "-c", "("+shell+") | wc -l"))
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// building is how many builds run on a host, by the users that only builds run as.
func (r *rig) building(host string) int {
	r.t.Helper()
	return r.count(host, "ps -eo user= | grep ^nixbld | sort -u")
}

// exitsWithin waits for the end of a process, which has to have this exit code.
func (r *rig) exitsWithin(p *fleet.Process, code int, d time.Duration) {
	r.t.Helper()
	got, err := p.Wait(within(r.t, d))
	if err != nil {
		r.t.Fatal(err)
	}
	if got != code {
		r.t.Errorf("%s ended with code %d, want %d; it printed:\n%s", p, got, code, p.Output())
	}
}

// says checks that a process told a person each of these.
func (r *rig) says(p *fleet.Process, want ...string) {
	r.t.Helper()
	contains(r.t, p.String(), p.Output(), want...)
}

func contains(t *testing.T, what, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("%s does not say %q:\n%s", what, w, text)
		}
	}
}

// signal sends a signal to the very program, as GitHub's runner does.
func (r *rig) signal(p *fleet.Process, sig syscall.Signal) {
	r.t.Helper()
	if err := p.Signal(sig); err != nil {
		r.t.Fatal(err)
	}
}

// awaitState waits until the builder of a host is in this state, and returns it.
func (r *rig) awaitState(host string, state apiclient.BuilderState) apiclient.Builder {
	r.t.Helper()
	now := r.await(fmt.Sprintf("one where %s is %s", host, state), r.is(map[string]apiclient.BuilderState{host: state}))
	b, _ := builderOf(now, r.NameOf(host))
	return b
}

// awaitLine waits until a process has printed this.
func (r *rig) awaitLine(p *fleet.Process, text string) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(p.Output(), text); time.Sleep(10 * time.Millisecond) {
		select {
		case <-p.Done():
			if !strings.Contains(p.Output(), text) {
				r.t.Fatalf("%s has ended and did not say %q:\n%s", p, text, p.Output())
			}
		default:
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s does not say %q:\n%s", p, text, p.Output())
		}
	}
}

// nodes are the names on the tailnet.
func (r *rig) nodes() (names []string) {
	r.t.Helper()
	nodes, err := r.Lab.Control().Nodes(within(r.t, patience))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, n := range nodes {
		names = append(names, n.Name)
	}
	return names
}

// pids are a host's processes of this program, with this first argument if one is given.
func (r *rig) pids(host, program string, arg ...string) (pids []string) {
	r.t.Helper()
	all, err := r.Host(host).Processes()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, p := range all {
		if len(p.Argv) > len(arg) && filepath.Base(p.Argv[0]) == program && slices.Equal(p.Argv[1:1+len(arg)], arg) {
			pids = append(pids, fmt.Sprint(p.PID))
		}
	}
	return pids
}

// kill sends a signal to the commands of nix-builders on a host, all at once. Each has to
// run.
func (r *rig) kill(sig, host string, commands ...string) {
	r.t.Helper()
	argv := []string{"kill", "-" + sig}
	for _, c := range commands {
		pids := r.pids(host, "nix-builders", c)
		if len(pids) != 1 {
			r.t.Fatalf("%s has %d processes of nix-builders %s, want one", host, len(pids), c)
		}
		argv = append(argv, pids[0])
	}
	r.must(host, argv...)
}

// writtenFiles are what the program writes outside its own directory.
var writtenFiles = []string{"/etc/nix/nix.conf", "/etc/nix/machines", "/root/.ssh/config", "/usr/local/bin/stop-nix-builders"}

// files are the content of those, and whether there is a directory of the program's.
func (r *rig) files(host string) map[string]string {
	r.t.Helper()
	all := map[string]string{}
	for _, name := range append([]string{fleet.StateDir}, writtenFiles...) {
		all[name] = r.must(host, "sh", "-c", `if test -f "$1"; then cat "$1"; elif test -e "$1"; then ls -d "$1"; else echo "(none)"; fi`, "sh", name)
	}
	return all
}

func pairs(env []string) map[string]string {
	m := map[string]string{}
	for _, kv := range env {
		k, v, _ := strings.Cut(kv, "=")
		m[k] = v
	}
	return m
}
