package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/measure"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

const (
	manySize   = 256
	manyLease  = 45 * time.Second
	manyLeases = 2 // for which nobody may be lost
	manyName   = "nix-builder-many-ubuntu-24.04-%d"
	manyStop   = 2.0   // seconds
	manyMemory = 100e6 // bytes
)

// manyBuilders is the largest cluster that there can be, in one lab network: the program's
// own coordinator and one real builder on their hosts, and 255 agents on two more, each with
// a tailnet node of its own. Their stores can't be opened, so they stay joined and are
// checked again and again.
func manyBuilders(ctx context.Context, b *bench) ([]*measure.Row, error) {
	what := func(s string) string { return fmt.Sprintf("%d builders, a tailnet node each: %s", manySize, s) }
	m := manyMeasures{
		up:     measure.New(what("start of a node to up on the tailnet"), measure.Seconds, measure.Many).Noting("%d at a time on each of 2 hosts", 8),
		gather: measure.New(what("coordinator serves to last one joined"), measure.Seconds, measure.Runs),
		memory: measure.New(what("resident memory of the server"), measure.Bytes, measure.Runs).Below(manyMemory),
		peak:   measure.New(what("highest resident memory of the server, the gathering included"), measure.Bytes, measure.Runs),
		files:  measure.New(what("file descriptors of the server"), measure.Number, measure.Runs),
		cpu: measure.New(what("CPU of the server while they wait"), measure.Percent, measure.Runs).
			Noting("over %v, of one CPU; 255 stores fail their checks meanwhile", manyLeases*manyLease),
		stop:    measure.New(what("stop-nix-builders, from its start to its end"), measure.Seconds, measure.Runs).Below(manyStop),
		release: measure.New(what("start of stop-nix-builders to an agent's end"), measure.Seconds, measure.Many),
	}
	err := withLab(ctx, b, testbed.Programs("./e2e/crew"), func(lab *testbed.Lab) error {
		return m.run(ctx, b, lab)
	})
	return []*measure.Row{m.up, m.gather, m.memory, m.peak, m.files, m.cpu, m.stop, m.release}, err
}

type manyMeasures struct{ up, gather, memory, peak, files, cpu, stop, release *measure.Row }

func (m *manyMeasures) run(ctx context.Context, b *bench, lab *testbed.Lab) error {
	r := &labRun{Fleet: fleet.New(lab, "many", 1), lines: new(lines), builders: map[string]*fleet.Process{}}
	r.Env["NIX_BUILDERS_LEASE"] = strconv.Itoa(int(manyLease.Seconds()))
	r.Env["NIX_BUILDERS_MIN_BUILDERS"] = "1"

	// Under this policy builders don't see each other. Where all see all, each node has to
	// be told of each other one.
	policy, err := fleet.Policy()
	if err != nil {
		return err
	}
	if err := lab.Control().SetPolicy(ctx, policy); err != nil {
		return err
	}
	crews, err := m.startCrews(ctx, r)
	if err != nil {
		return err
	}
	b.logf("  all nodes are up")
	var names []string
	for i := range manySize {
		names = append(names, fmt.Sprintf(manyName, i+1))
	}
	step, err := r.StartCoordinator(ctx, map[string]string{"NIX_BUILDERS_BUILDERS": strings.Join(names, " ")})
	if err != nil {
		return err
	}
	serving, err := r.serving(ctx)
	if err != nil {
		return err
	}
	real, err := r.StartBuilder(ctx, r.Builders[0], nil)
	if err != nil {
		return err
	}
	if err := well(ctx, step); err != nil {
		return err
	}
	before, err := r.allThere(ctx)
	if err != nil {
		return err
	}
	var joined []time.Time
	for _, one := range before.Builders {
		joined = append(joined, *one.JoinedAt)
	}
	m.gather.Took(latest(joined).Sub(serving))
	b.logf("  all are there")
	if err := m.wait(ctx, r, before); err != nil {
		return err
	}
	began, ended, err := r.stop(ctx)
	if err != nil {
		return err
	}
	m.stop.Took(ended.Sub(began))
	if took := ended.Sub(began); took.Seconds() > manyStop {
		text, err := r.ServerLog(ctx)
		if err != nil {
			return err
		}
		i := max(0, strings.Index(text, "cluster.stopping"))
		b.logf("  a stop of %v, which began at %v:\n%.6000s", took, began, text[strings.LastIndexByte(text[:i], '\n')+1:])
	}
	for _, p := range append(crews, real) {
		if err := well(ctx, p); err != nil {
			return err
		}
	}
	return m.ended(crews, began)
}

// startCrews starts all builders but the first and returns when their nodes are up.
func (m *manyMeasures) startCrews(ctx context.Context, r *labRun) (crews []*fleet.Process, err error) {
	const half = manySize / 2
	for host, span := range map[string][2]int{testbed.Builder(2): {2, half}, testbed.Builder(3): {half + 1, manySize}} {
		p, err := r.Start(ctx, host, testbed.Runner, "crew", "-login-server", r.Lab.LoginServer(), "-cluster", r.Cluster(),
			"-name", manyName, "-from", strconv.Itoa(span[0]), "-to", strconv.Itoa(span[1]), "-lease", manyLease.String())
		if err != nil {
			return nil, err
		}
		crews = append(crews, p)
	}
	var up errgroup.Group
	for _, p := range crews {
		up.Go(func() error {
			for !strings.Contains(p.Output(), `"all up"`) {
				select {
				case <-p.Done():
					return fmt.Errorf("%s has ended: %s", p, p.Output())
				default:
				}
				if err := pause(ctx, 50*time.Millisecond); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := up.Wait(); err != nil {
		return nil, err
	}
	for _, p := range crews {
		for _, l := range crewLines(p, "up") {
			m.up.Took(l.Took)
		}
	}
	return crews, nil
}

// wait lets all of them wait, and nothing may happen to any.
func (m *manyMeasures) wait(ctx context.Context, r *labRun, before apiclient.Cluster) error {
	server, err := findProcess(r.Host(r.Coordinator), "nix-builders serve")
	if err != nil {
		return err
	}
	used, err := server.cpu(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := pause(ctx, manyLeases*manyLease); err != nil {
		return err
	}
	now, err := server.cpu(ctx)
	if err != nil {
		return err
	}
	m.cpu.Add(100 * (now - used).Seconds() / time.Since(began).Seconds())
	resident, _, err := server.memory(ctx)
	if err != nil {
		return err
	}
	m.memory.Add(float64(resident))
	text, err := server.host.Output(ctx, "sh", "-c", fmt.Sprintf("ls /proc/%d/fd | wc -l; grep VmHWM: /proc/%[1]d/status", server.pid))
	if err != nil {
		return err
	}
	files, peak, _ := strings.Cut(text, "\n")
	n, err := strconv.Atoi(strings.TrimSpace(files))
	if err != nil {
		return fmt.Errorf("descriptors of the server: %q", text)
	}
	m.files.Add(float64(n))
	m.peak.Add(float64(measure.Kibibytes(strings.TrimSpace(strings.TrimPrefix(peak, "VmHWM:")))))

	after, err := r.cluster(ctx)
	if err != nil {
		return err
	}
	if there := present(after); there != manySize || after.Event != before.Event {
		return fmt.Errorf("after %v %d of %d builders are there, and event %d has followed %d: somebody was lost",
			manyLeases*manyLease, there, manySize, after.Event, before.Event)
	}
	return nil
}

// ended takes in when each agent ended, all of which have to have been released.
func (m *manyMeasures) ended(crews []*fleet.Process, began time.Time) error {
	for _, p := range crews {
		for _, l := range crewLines(p, "ended") {
			if l.Failed != "" || !strings.Contains(l.Said, departedLine) {
				return fmt.Errorf("%s ended with %q and said %q", l.Name, l.Failed, l.Said)
			}
			m.release.Took(l.At.Sub(began))
		}
	}
	if n := len(m.release.Values); n != manySize-1 {
		return fmt.Errorf("%d agents ended, not %d", n, manySize-1)
	}
	return nil
}

// A crewLine is what e2e/crew prints.
type crewLine struct {
	What   string        `json:"what"`
	Name   string        `json:"name"`
	At     time.Time     `json:"at"`
	Took   time.Duration `json:"took_ns"`
	Failed string        `json:"failed"`
	Said   string        `json:"said"`
}

func crewLines(p *fleet.Process, what string) (all []crewLine) {
	for text := range strings.Lines(p.Output()) {
		var l crewLine
		if json.Unmarshal([]byte(text), &l) == nil && l.What == what {
			all = append(all, l)
		}
	}
	return all
}

// serving waits until the coordinator's server serves and returns when it was seen to.
func (r *labRun) serving(ctx context.Context) (time.Time, error) {
	for {
		if _, err := r.Server(ctx); err == nil {
			return time.Now(), nil
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return time.Time{}, err
		}
	}
}

// cluster reads the cluster on the coordinator's host.
func (r *labRun) cluster(ctx context.Context) (c apiclient.Cluster, err error) {
	s, err := r.Server(ctx)
	if err != nil {
		return c, err
	}
	text, err := r.Host(r.Coordinator).Output(ctx, "curl", "-sS", "--fail", "--max-time", "20", s.API+"/cluster")
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal([]byte(text), &c)
}

// allThere waits until all builders are, the first of them ready.
func (r *labRun) allThere(ctx context.Context) (apiclient.Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		c, err := r.cluster(ctx)
		if err == nil && present(c) == manySize {
			return c, nil
		}
		if paused := pause(ctx, 200*time.Millisecond); paused != nil {
			return c, fmt.Errorf("%d of %d builders are there: %w (%v)", present(c), manySize, paused, err)
		}
	}
}

func present(c apiclient.Cluster) (n int) {
	for _, b := range c.Builders {
		if b.State == apiclient.BuilderStateJoined || b.State == apiclient.BuilderStateReady {
			n++
		}
	}
	return n
}
