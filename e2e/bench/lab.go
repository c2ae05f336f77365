package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// labBuilders is how many builders the lab has.
const labBuilders = 3

// withLab makes a lab for the time of use, and nothing of it is left afterwards.
func withLab(ctx context.Context, b *bench, programs []string, use func(*testbed.Lab) error) (err error) {
	cfg := testbed.Config{Name: fmt.Sprintf("bench-%d", os.Getpid()), Builders: labBuilders, Programs: programs}
	testbed.FromEnv(&cfg, os.Getenv)
	lab, err := testbed.Up(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() {
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		err = errors.Join(err, lab.Down(down))
	}()
	return use(lab)
}

// A labRun is one cluster of the program on the lab's hosts.
type labRun struct {
	*fleet.Fleet
	lines    *lines
	builders map[string]*fleet.Process // by host
}

// startRun starts a coordinator and then, when it serves, all builders at once, and
// returns when the cluster is ready: what the last builder waits for is then no more than
// what has to be done for it.
func startRun(ctx context.Context, lab *testbed.Lab, suffix string) (*labRun, error) {
	r := &labRun{Fleet: fleet.New(lab, suffix, labBuilders), lines: new(lines), builders: map[string]*fleet.Process{}}
	r.Out = r.lines
	gathering, err := r.StartCoordinator(ctx, nil)
	if err != nil {
		return nil, err
	}
	if _, err := r.lines.await(ctx, r.Coordinator, "Waiting for "); err != nil {
		return nil, fmt.Errorf("%w:\n%s", err, gathering.Output())
	}
	procs := make([]*fleet.Process, len(r.Builders))
	var starting errgroup.Group
	for i, host := range r.Builders {
		starting.Go(func() (err error) {
			procs[i], err = r.StartBuilder(ctx, host, nil)
			return err
		})
	}
	if err := starting.Wait(); err != nil {
		return nil, err
	}
	for i, host := range r.Builders {
		r.builders[host] = procs[i]
	}
	return r, well(ctx, gathering)
}

// stop is stop-nix-builders on the coordinator's host. It returns when the call began
// and when the command had ended.
func (r *labRun) stop(ctx context.Context) (began, ended time.Time, err error) {
	began = time.Now()
	p, err := r.Start(ctx, r.Coordinator, testbed.Root, "stop-nix-builders")
	if err != nil {
		return began, ended, err
	}
	err = well(ctx, p)
	return began, time.Now(), err
}

// leave is the last step of the coordinator's job.
func (r *labRun) leave(ctx context.Context) error {
	p, err := r.Start(ctx, r.Coordinator, testbed.Root, "nix-builders", "leave")
	if err != nil {
		return err
	}
	return well(ctx, p)
}

// well waits for the end of a process, which must be a good one.
func well(ctx context.Context, p *fleet.Process) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	code, err := p.Wait(ctx)
	if err == nil && code != 0 {
		err = fmt.Errorf("%s: exit code %d:\n%s", p, code, p.Output())
	}
	return err
}

// allEnded waits until every builder's process has ended well and returns when the last
// one did.
func (r *labRun) allEnded(ctx context.Context) (last time.Time, err error) {
	ended := make([]time.Time, len(r.Builders))
	var ending errgroup.Group
	for i, host := range r.Builders {
		ending.Go(func() error {
			err := well(ctx, r.builders[host])
			ended[i] = time.Now()
			return err
		})
	}
	if err := ending.Wait(); err != nil {
		return last, err
	}
	return latest(ended), nil
}

func latest(times []time.Time) (last time.Time) {
	for _, t := range times {
		if t.After(last) {
			last = t
		}
	}
	return last
}

// modified is when a file of a host was written last. Hosts have this machine's clock.
func modified(ctx context.Context, h *testbed.Host, file string) (time.Time, error) {
	text, err := h.Output(ctx, "stat", "--format=%.9Y", file)
	if err != nil {
		return time.Time{}, err
	}
	whole, part, _ := strings.Cut(text, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s: %w", file, err)
	}
	nsec, err := strconv.ParseInt(part, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s: %w", file, err)
	}
	return time.Unix(sec, nsec), nil
}
