// Package e2e_test runs the program on real hosts as a workflow runs it on its runners,
// and asks for what a person sees: exit codes, reports, files, what Nix built where.
//
// The hosts, their network and their tailnet come from package testbed, the way the
// program is started from package fleet. A test waits for a state that the API tells or
// for a process to end, never for a time to pass.
package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// patience bounds every single wait. It is for machines that are busy with other things:
// what is to be fast is measured by the benchmarks.
const patience = 60 * time.Second

// startLab boots a lab of the test's own, called after it or the subtest, under the policy that users
// are told to set unless the test has another.
func startLab(t *testing.T, cfg testbed.Config) *testbed.Lab {
	t.Helper()
	if cfg.Control.Policy == nil {
		policy, err := fleet.Policy()
		if err != nil {
			t.Fatal(err)
		}
		cfg.Control.Policy = &policy
	}
	cfg.Name = strings.ToLower(fmt.Sprintf("%.20s-%d", strings.TrimPrefix(path.Base(t.Name()), "Test"), os.Getpid()))
	return testbed.Start(t, cfg)
}

// within returns a context that ends with the test or after d.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeoutCause(t.Context(), d, fmt.Errorf("not within %v", d))
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for a condition that nothing tells of.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %v: not %s", patience, what)
		}
	}
}

// output runs argv on the host, which must succeed, and returns what it prints.
func output(t *testing.T, h *testbed.Host, user string, argv ...string) string {
	t.Helper()
	out, err := h.OutputAs(within(t, patience), user, argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// cluster is one run of the program on a lab, watched by a test. Its processes end with
// the test; when the test fails, all that they printed is in its output.
type cluster struct {
	*fleet.Fleet
	t        *testing.T
	builders map[string]*fleet.Process // by host; started ones
	step     *fleet.Process            // the coordinator's step; nil before it is started
}

func newCluster(t *testing.T, lab *testbed.Lab, suffix string, builders int) *cluster {
	f := fleet.New(lab, suffix, builders)
	// Long enough for a busy machine, short enough not to be waited for.
	f.Env["NIX_BUILDERS_BUILDER_TIMEOUT"] = "90"
	printed := new(transcript)
	f.Out = printed
	c := &cluster{Fleet: f, t: t, builders: map[string]*fleet.Process{}}
	t.Cleanup(func() {
		if t.Failed() {
			c.tell(printed.String())
		}
	})
	return c
}

// tell shows all that the run said, and what its daemons logged.
func (c *cluster) tell(printed string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c.t.Logf("what the processes of %s printed:\n%s", c.Cluster(), printed)
	for _, h := range c.Lab.Hosts() {
		if !h.Alive() {
			continue
		}
		logs, _ := h.Output(ctx, "sh", "-c", `for f in `+fleet.StateDir+`/*/*/*.log; do test -f "$f" && { echo "== $f"; tail -n 60 "$f"; }; done`)
		if logs != "" {
			c.t.Logf("logs on %s:\n%s", h.Name(), logs)
		}
	}
}

// startBuilder starts the builder on a host.
func (c *cluster) startBuilder(host string, env map[string]string) *fleet.Process {
	c.t.Helper()
	p, err := c.StartBuilder(c.t.Context(), host, env)
	if err != nil {
		c.t.Fatal(err)
	}
	c.builders[host] = p
	return p
}

// startCoordinator starts the coordinator's step.
func (c *cluster) startCoordinator(env map[string]string, args ...string) *fleet.Process {
	c.t.Helper()
	p, err := c.StartCoordinator(c.t.Context(), env, args...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.step = p
	return p
}

// up starts all of it and returns when the coordinator's step has ended well.
func (c *cluster) up() {
	c.t.Helper()
	for _, host := range c.Builders {
		c.startBuilder(host, nil)
	}
	c.startCoordinator(nil)
	c.wantExit(c.step, 0)
}

// start starts a command on the coordinator's host with the run's environment.
func (c *cluster) start(user string, argv ...string) *fleet.Process {
	c.t.Helper()
	p, err := c.Start(c.t.Context(), c.Coordinator, user, argv...)
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

// run runs a command on the coordinator's host with the run's environment, and returns its
// exit code and all that it printed.
func (c *cluster) run(user string, argv ...string) (code int, printed string) {
	c.t.Helper()
	p := c.start(user, argv...)
	return c.exit(p), p.Output()
}

// exit waits for the process to end and returns its exit code.
func (c *cluster) exit(p *fleet.Process) int {
	c.t.Helper()
	code, err := p.Wait(within(c.t, patience))
	if err != nil {
		c.t.Fatal(err)
	}
	return code
}

func (c *cluster) wantExit(p *fleet.Process, want int) {
	c.t.Helper()
	if got := c.exit(p); got != want {
		c.t.Fatalf("%s ended with code %d, want %d; it printed:\n%s", p, got, want, p.Output())
	}
}

// wantReleased waits for the builders to end because they were released.
func (c *cluster) wantReleased() {
	c.t.Helper()
	for _, p := range c.builders {
		c.wantExit(p, 0)
	}
}

// stop calls stop-nix-builders as the job's user does, and returns what it printed.
func (c *cluster) stop(args ...string) string {
	c.t.Helper()
	code, printed := c.run(testbed.Runner, append([]string{"stop-nix-builders"}, args...)...)
	if code != 0 {
		c.t.Fatalf("stop-nix-builders ended with code %d:\n%s", code, printed)
	}
	return printed
}

// leave is the coordinator's last step.
func (c *cluster) leave() string {
	c.t.Helper()
	code, printed := c.run(testbed.Root, "nix-builders", "leave")
	if code != 0 {
		c.t.Fatalf("nix-builders leave ended with code %d:\n%s", code, printed)
	}
	return printed
}

// api is the base URL of the coordinator's API, as soon as it is served.
func (c *cluster) api() (base string) {
	c.t.Helper()
	ctx := within(c.t, patience)
	eventually(c.t, "a server on "+c.Coordinator, func() bool {
		s, err := c.Server(ctx)
		base = s.API
		return err == nil
	})
	return base
}

// await waits until the cluster is as ok wants it, by blocking queries from the
// coordinator's host.
func (c *cluster) await(what string, ok func(apiclient.Cluster) bool) apiclient.Cluster {
	c.t.Helper()
	var now apiclient.Cluster
	ctx := within(c.t, patience)
	h, api := c.Host(c.Coordinator), c.api()
	for {
		text, err := h.OutputAs(ctx, testbed.Runner, "curl", "-sS", "--fail-with-body", "--max-time", "20",
			fmt.Sprintf("%s/cluster?wait=5&after=%d", api, now.Revision))
		if ctx.Err() != nil {
			c.t.Fatalf("the cluster is not %s within %v, but:\n%s", what, patience, show(now))
		}
		if err != nil {
			time.Sleep(50 * time.Millisecond) // its server may be starting
			continue
		}
		last := now.Revision
		now = decode[apiclient.Cluster](c.t, []byte(text))
		if ok(now) {
			return now
		}
		if now.Revision == last {
			time.Sleep(50 * time.Millisecond) // a cluster that stops answers at once
		}
	}
}

// is wants builders, by host, to be in these states.
func (c *cluster) is(want map[string]apiclient.BuilderState) func(apiclient.Cluster) bool {
	return func(now apiclient.Cluster) bool {
		for host, state := range want {
			if b, ok := builderOf(now, c.NameOf(host)); !ok || b.State != state {
				return false
			}
		}
		return true
	}
}

// builderOf returns the builder of that name.
func builderOf(c apiclient.Cluster, name string) (apiclient.Builder, bool) {
	for _, b := range c.Builders {
		if b.Name == name {
			return b, true
		}
	}
	return apiclient.Builder{}, false
}

// decode reads JSON that has to be just what the contract's type is.
func decode[T any](t *testing.T, text []byte) (v T) {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("not a %T: %v:\n%s", v, err, text)
	}
	return v
}

// show is v for a person.
func show(v any) string {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// transcript collects what many processes print.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (t *transcript) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(b)
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}
