package main

import (
	"context"
	"fmt"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/measure"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

const (
	gatherTime   = 1.0 // seconds
	gatherTimes  = 6   // gatherings for each round of others: few are slow, and a few rounds may miss them
	machinesFile = "/etc/nix/machines"
	joinedLine   = "joined the tailnet"
	departedLine = "left the cluster"
)

// clusterOfHosts gathers and stops the program's own cluster on the lab's hosts, again
// and again.
func clusterOfHosts(ctx context.Context, b *bench) (rows []*measure.Row, err error) {
	gather := measure.New("3 lab hosts: last builder up on the tailnet to machines written", measure.Seconds, measure.Many).Below(gatherTime)
	slow := measure.New("3 lab hosts: share of gatherings that took longer than the aim", measure.Percent, measure.Runs)
	command := measure.New("3 lab hosts: stop-nix-builders, from its start to its end", measure.Seconds, measure.Runs)
	departed := measure.New("3 lab hosts: start of stop-nix-builders to last builder departed", measure.Seconds, measure.Runs)
	ended := measure.New("3 lab hosts: start of stop-nix-builders to end of the last builder's process", measure.Seconds, measure.Runs).
		Noting("it has left the tailnet then")
	err = withLab(ctx, b, nil, func(lab *testbed.Lab) error {
		for i := range gatherTimes * b.rounds {
			r, err := startRun(ctx, lab, fmt.Sprintf("c%d", i))
			if err != nil {
				return err
			}
			took, err := r.gathering(ctx)
			if err != nil {
				return err
			}
			gather.Took(took)
			if took.Seconds() > gatherTime {
				b.logf("  a gathering of %v:\n%s", took, r.lines)
			}
			if err := pause(ctx, time.Second); err != nil { // a stop finds a cluster at rest
				return err
			}
			began, done, err := r.stop(ctx)
			if err != nil {
				return err
			}
			command.Took(done.Sub(began))
			last, err := r.allEnded(ctx)
			if err != nil {
				return err
			}
			ended.Took(last.Sub(began))
			said, err := r.allSaid(ctx, departedLine)
			if err != nil {
				return err
			}
			departed.Took(said.Sub(began))
			if err := r.leave(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	over := 0
	for _, took := range gather.Values {
		if took >= gatherTime {
			over++
		}
	}
	if n := len(gather.Values); n > 0 {
		slow.Noting("%d of %d", over, n).Add(100 * float64(over) / float64(n))
	}
	return []*measure.Row{gather, slow, command, departed, ended}, err
}

// gathering is how long after the last builder was on the tailnet the machines file had
// them all.
func (r *labRun) gathering(ctx context.Context) (time.Duration, error) {
	written, err := modified(ctx, r.Host(r.Coordinator), machinesFile)
	if err != nil {
		return 0, err
	}
	var up []time.Time
	for _, host := range r.Builders {
		l, err := r.lines.await(ctx, host, joinedLine)
		if err != nil {
			return 0, err
		}
		at, err := l.stamp()
		if err != nil {
			return 0, err
		}
		up = append(up, at)
	}
	return written.Sub(latest(up)), nil
}

// allSaid is when the last builder printed the words.
func (r *labRun) allSaid(ctx context.Context, words string) (time.Time, error) {
	var at []time.Time
	for _, host := range r.Builders {
		l, err := r.lines.await(ctx, host, words)
		if err != nil {
			return time.Time{}, err
		}
		at = append(at, l.at)
	}
	return latest(at), nil
}

// pause waits for d, or returns why ctx ended.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
