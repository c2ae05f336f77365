// Package fleet runs the project's program on a lab's hosts the way a workflow runs it
// on its runners: builders in the foreground of their jobs, the coordinator as a step
// that returns. The tests, the demo and the benchmarks share it.
package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/rundir"
)

// Fleet is one workflow run on a lab: a cluster to be.
type Fleet struct {
	Lab *testbed.Lab
	// Suffix tells the runs on one lab apart, as in a workflow.
	Suffix string
	// Run is the run that the cluster id names; if empty, Suffix.
	Run string
	// Coordinator is the host that gathers the builders; if empty,
	// [testbed.Coordinator].
	Coordinator string
	// Builders are the hosts whose builders the coordinator expects.
	Builders []string
	// Names are the builders that are called otherwise than NameOf would have it, by host.
	Names map[string]string
	// Under is what runs the program on a host, by host, before the program's own name:
	// what becomes a process of the program in the end.
	Under map[string][]string
	// Env is set for every process, over what the fleet sets itself.
	Env map[string]string
	// Out, if not nil, gets what processes print, each line behind its host's name.
	Out io.Writer
}

// New returns a run with this suffix on the lab's first hosts: its coordinator and as
// many of its builders.
func New(lab *testbed.Lab, suffix string, builders int) *Fleet {
	f := &Fleet{Lab: lab, Suffix: suffix, Coordinator: testbed.Coordinator, Env: map[string]string{}}
	for i := range builders {
		f.Builders = append(f.Builders, testbed.Builder(i+1))
	}
	return f
}

// Cluster is the cluster id, as GitHub would make it.
func (f *Fleet) Cluster() string { return "acme/site/" + cmp.Or(f.Run, f.Suffix) + "/1" }

// NameOf is the host name that the builder on this lab host asks for. It holds a dot, as
// the names of runner images do, so the tailnet calls it something else.
func (f *Fleet) NameOf(host string) string {
	if name, ok := f.Names[host]; ok {
		return name
	}
	return "nix-builder-" + f.Suffix + "-ubuntu-24.04-" + strings.TrimPrefix(host, "builder-")
}

// LabelOf is what the tailnet makes of NameOf where no clash is.
func (f *Fleet) LabelOf(host string) string { return strings.ReplaceAll(f.NameOf(host), ".", "-") }

// Server says how the coordinator's server is reached, as other commands of its host find
// it. There is none before it listens and after nix-builders leave.
func (f *Fleet) Server(ctx context.Context) (s rundir.Server, err error) {
	text, err := f.Host(f.Coordinator).ReadFile(ctx, f.dir().Path("server.json"))
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(text, &s)
}

// ServerLog is what the detached server has logged.
func (f *Fleet) ServerLog(ctx context.Context) (string, error) {
	text, err := f.Host(f.Coordinator).ReadFile(ctx, f.dir().LogPath())
	return string(text), err
}

func (f *Fleet) dir() *rundir.Dir { return rundir.At(StateDir, f.Cluster(), rundir.Coordinator) }

// StateDir is where hosts keep what they know of their clusters.
const StateDir = "/run/nix-builders"

// Host returns the lab host of that name.
func (f *Fleet) Host(name string) *testbed.Host { return f.Lab.Host(name) }

// KeyFile is where hosts have the key to the tailnet.
const KeyFile = "/run/tailscale-authkey"

// environment is what every process of the run has, and more.
func (f *Fleet) environment(more map[string]string) []string {
	env := map[string]string{
		"NIX_BUILDERS_CLUSTER":         f.Cluster(),
		"NIX_BUILDERS_LOGIN_SERVER":    f.Lab.LoginServer(),
		"NIX_BUILDERS_AUTH_KEY_FILE":   KeyFile,
		"NIX_BUILDERS_TAILSCALED_LOGS": "false",
	}
	maps.Copy(env, f.Env)
	maps.Copy(env, more)
	var list []string
	for _, k := range slices.Sorted(maps.Keys(env)) {
		list = append(list, k+"="+env[k])
	}
	return list
}

// StartBuilder starts the builder of a host. more is set over the run's environment.
func (f *Fleet) StartBuilder(ctx context.Context, host string, more map[string]string) (*Process, error) {
	env := map[string]string{"NIX_BUILDERS_HOSTNAME": f.NameOf(host)}
	maps.Copy(env, more)
	return f.start(ctx, host, "root", env, append(slices.Clone(f.Under[host]), "nix-builders", "builder")...)
}

// StartCoordinator starts the coordinator's step.
func (f *Fleet) StartCoordinator(ctx context.Context, more map[string]string, args ...string) (*Process, error) {
	var names []string
	for _, b := range f.Builders {
		names = append(names, f.NameOf(b))
	}
	env := map[string]string{
		"NIX_BUILDERS_HOSTNAME": "nix-coordinator-" + f.Suffix,
		"NIX_BUILDERS_BUILDERS": strings.Join(names, " "),
	}
	maps.Copy(env, more)
	argv := append(slices.Clone(f.Under[f.Coordinator]), "nix-builders", "coordinator")
	return f.start(ctx, f.Coordinator, "root", env, append(argv, args...)...)
}

// Start starts another command on a host, with the environment of the run.
func (f *Fleet) Start(ctx context.Context, host, user string, argv ...string) (*Process, error) {
	return f.start(ctx, host, user, nil, argv...)
}

// StartWith is [Fleet.Start] with more set over the run's environment.
func (f *Fleet) StartWith(ctx context.Context, host, user string, more map[string]string, argv ...string) (*Process, error) {
	return f.start(ctx, host, user, more, argv...)
}

func (f *Fleet) start(ctx context.Context, host, user string, more map[string]string, argv ...string) (*Process, error) {
	h := f.Lab.Host(host)
	if err := h.WriteFile(ctx, KeyFile, []byte(control.CIKey+"\n"), 0o600); err != nil {
		return nil, err
	}
	cmd := h.CommandAs(ctx, user, argv...)
	cmd.Env = append(cmd.Env, f.environment(more)...)
	p := &Process{cmd: cmd, name: host + ": " + strings.Join(argv, " "), done: make(chan struct{})}
	p.out.label, p.out.tee = host, f.Out
	cmd.Stdout, cmd.Stderr = &p.out, &p.out
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	go p.wait()
	return p, nil
}

// Up starts all builders and the coordinator, and returns when the coordinator's step
// has ended well.
func (f *Fleet) Up(ctx context.Context) (builders map[string]*Process, err error) {
	builders = map[string]*Process{}
	for _, host := range f.Builders {
		if builders[host], err = f.StartBuilder(ctx, host, nil); err != nil {
			return builders, err
		}
	}
	c, err := f.StartCoordinator(ctx, nil)
	if err != nil {
		return builders, err
	}
	if code, err := c.Wait(ctx); err != nil || code != 0 {
		return builders, fmt.Errorf("%s: exit code %d (%v):\n%s", c.name, code, err, c.Output())
	}
	return builders, nil
}
