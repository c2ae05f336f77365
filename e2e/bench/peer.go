package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/measure"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// The peer is the action that this one follows: a builder's step looks for a file every
// ten seconds, and the coordinator makes the files, one SSH session after the other.
const (
	peerPoll = 10 * time.Second
	peerFlag = "/tmp/released"

	peerLoop   = `rm -f "$0"; while [ ! -e "$0" ]; do sleep "$1"; done`
	peerSignal = `for b in "$@"; do ssh "root@$b" "touch ` + peerFlag + `"; done`
)

// peersWay stops the same hosts in the peer's way and in ours, in turn.
func peersWay(ctx context.Context, b *bench) ([]*measure.Row, error) {
	theirs := measure.New(fmt.Sprintf("the peer's way, 3 lab hosts: start of the stop to end of the last builder's loop (a file looked for every %v, one ssh a builder)", peerPoll), measure.Seconds, measure.Runs)
	ours := measure.New("ours in turn with it, 3 lab hosts: start of stop-nix-builders to end of the last builder's process", measure.Seconds, measure.Runs)
	err := withLab(ctx, b, nil, func(lab *testbed.Lab) error {
		for i := range b.rounds {
			r, err := startRun(ctx, lab, fmt.Sprintf("p%d", i))
			if err != nil {
				return err
			}
			took, err := r.peerStop(ctx)
			if err != nil {
				return err
			}
			theirs.Took(took)
			began, _, err := r.stop(ctx)
			if err != nil {
				return err
			}
			last, err := r.allEnded(ctx)
			if err != nil {
				return err
			}
			ours.Took(last.Sub(began))
			if err := r.leave(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	times := measure.New("time of the peer's way over ours", measure.Ratio, measure.Runs).Noting("median over median").
		Add(theirs.Quantile(.5) / ours.Quantile(.5))
	return []*measure.Row{theirs, ours, times}, nil
}

// peerStop starts the peer's loops, each at a time of its own, and stops them.
func (r *labRun) peerStop(ctx context.Context) (time.Duration, error) {
	loops := make([]*fleet.Process, len(r.Builders))
	var starting errgroup.Group
	for i, host := range r.Builders {
		starting.Go(func() (err error) {
			if err = pause(ctx, rand.N(peerPoll)); err != nil {
				return err
			}
			loops[i], err = r.Start(ctx, host, testbed.Root, "bash", "-c", peerLoop, peerFlag, fmt.Sprint(peerPoll.Seconds()))
			return err
		})
	}
	if err := starting.Wait(); err != nil {
		return 0, err
	}
	if err := pause(ctx, rand.N(peerPoll)); err != nil {
		return 0, err
	}
	var names []string
	for _, host := range r.Builders {
		names = append(names, strings.ToLower(r.NameOf(host))) // as root's ssh knows them
	}
	began := time.Now()
	signal, err := r.Start(ctx, r.Coordinator, testbed.Root, append([]string{"bash", "-c", peerSignal, "stop"}, names...)...)
	if err != nil {
		return 0, err
	}
	if err := well(ctx, signal); err != nil {
		return 0, err
	}
	for _, loop := range loops {
		if err := well(ctx, loop); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}
