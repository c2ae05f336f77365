package main

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/measure"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

const (
	idleFor    = 75 * time.Second // holds a minute's vitals and several polls
	idleMemory = 30e6             // bytes
	idleCPU    = .5               // percent
)

// idleBuilder looks at builders that wait for their teardown.
func idleBuilder(ctx context.Context, b *bench) (rows []*measure.Row, err error) {
	resident := measure.New("idle builder: resident memory", measure.Bytes, measure.Runs).Below(idleMemory).Noting("of each of 3 after %v", idleFor)
	own := measure.New("idle builder: memory that is its alone", measure.Bytes, measure.Runs)
	cpu := measure.New("idle builder: CPU", measure.Percent, measure.Runs).Below(idleCPU).Noting("over %v, of one CPU", idleFor)
	daemon := measure.New("beside it: resident memory of its tailscaled", measure.Bytes, measure.Runs)
	daemonCPU := measure.New("beside it: CPU of its tailscaled", measure.Percent, measure.Runs)
	err = withLab(ctx, b, nil, func(lab *testbed.Lab) error {
		r, err := startRun(ctx, lab, "idle")
		if err != nil {
			return err
		}
		if err := pause(ctx, 2*time.Second); err != nil { // starting is not idling
			return err
		}
		var builders, daemons []hostProcess
		for _, host := range r.Builders {
			for argv, list := range map[string]*[]hostProcess{"nix-builders builder": &builders, "tailscaled": &daemons} {
				p, err := findProcess(r.Host(host), argv)
				if err != nil {
					return err
				}
				*list = append(*list, p)
			}
		}
		all := slices.Concat(builders, daemons)
		before := make([]time.Duration, len(all))
		began := time.Now()
		for i, p := range all {
			if before[i], err = p.cpu(ctx); err != nil {
				return err
			}
		}
		if err := pause(ctx, idleFor); err != nil {
			return err
		}
		took := time.Since(began)
		for i, p := range all {
			now, err := p.cpu(ctx)
			if err != nil {
				return err
			}
			memory, private, err := p.memory(ctx)
			if err != nil {
				return err
			}
			used := 100 * (now - before[i]).Seconds() / took.Seconds()
			if i < len(builders) {
				resident.Add(float64(memory))
				own.Add(float64(private))
				cpu.Add(used)
			} else {
				daemon.Add(float64(memory))
				daemonCPU.Add(used)
			}
		}
		if _, _, err := r.stop(ctx); err != nil {
			return err
		}
		_, err = r.allEnded(ctx)
		return err
	})
	return []*measure.Row{resident, own, cpu, daemon, daemonCPU}, err
}

// A hostProcess is a process on a host of the lab.
type hostProcess struct {
	host *testbed.Host
	pid  int // as the host sees it
}

// findProcess returns the one process of the host whose program and first arguments are
// argv.
func findProcess(h *testbed.Host, argv string) (hostProcess, error) {
	all, err := h.Processes()
	if err != nil {
		return hostProcess{}, err
	}
	var found []hostProcess
	for _, p := range all {
		if len(p.Argv) == 0 {
			continue
		}
		line := strings.Join(append([]string{path.Base(p.Argv[0])}, p.Argv[1:]...), " ")
		if line == argv || strings.HasPrefix(line, argv+" ") {
			found = append(found, hostProcess{h, p.PID})
		}
	}
	if len(found) != 1 {
		return hostProcess{}, fmt.Errorf("%s has %d processes %q: %v", h.Name(), len(found), argv, all)
	}
	return found[0], nil
}

// cpu is the CPU time that the process has had, to the nanosecond.
func (p hostProcess) cpu(ctx context.Context) (time.Duration, error) {
	text, err := p.host.Output(ctx, "sh", "-c", fmt.Sprintf("cat /proc/%d/task/*/schedstat", p.pid))
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for line := range strings.Lines(text) { // "RUN WAIT SLICES", in ns
		ran, _, _ := strings.Cut(line, " ")
		ns, err := strconv.ParseInt(ran, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("schedstat of %s's process %d: %w", p.host.Name(), p.pid, err)
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}

// memory is what the process has in memory, and what of that nobody else uses.
func (p hostProcess) memory(ctx context.Context) (resident, private int64, err error) {
	text, err := p.host.ReadFile(ctx, fmt.Sprintf("/proc/%d/smaps_rollup", p.pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		n := measure.Kibibytes(strings.TrimSpace(value))
		switch key {
		case "Rss":
			resident = n
		case "Private_Clean", "Private_Dirty":
			private += n
		}
	}
	if resident == 0 {
		return 0, 0, fmt.Errorf("%s's process %d has no memory", p.host.Name(), p.pid)
	}
	return resident, private, nil
}
