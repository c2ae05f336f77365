package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

var stopCommand = command{
	name:    "stop",
	args:    "[--wait DURATION] [BUILDER...]",
	summary: "release the builders, all or the named ones (also: stop-nix-builders)",
	detail: `Tells the coordinator to stop the cluster, waits until the builders have left, and
shows each. May be called as often as you like. The exit code is 0 when all have left.
Later nix commands build on this host alone. In a workflow on GitHub it also writes the
job summary: what became of each builder, and what to do about those that went wrong.

With names, only those builders are released and the cluster goes on.

  --wait DURATION   wait so long for builders to leave, 5 min at most (default 30s)`,
	run: func(ctx context.Context, a *app, args []string) error {
		wait := seconds(30 * time.Second)
		names, err := a.flags("stop", args, func(fs *flag.FlagSet) { fs.Func("wait", "", wait.Decode) })
		if err != nil {
			return err
		}
		if d := time.Duration(wait); d < 0 || d > 5*time.Minute {
			return usagef("--wait %v is out of range, want 0s to 5m", d)
		}
		api, err := a.set.reach()
		if err != nil {
			return err
		}
		report, err := a.release(ctx, api, time.Duration(wait), names)
		if err != nil && !errors.Is(err, problem.BuildersRemain) {
			return err
		}
		told := len(names) == 0 && a.summarize(ctx, api, report, false)
		return a.tellReleased(report, err, told, len(names) == 0)
	},
}

// release tells builders to leave and waits for them.
func (a *app) release(ctx context.Context, api *apiclient.API, wait time.Duration, names []string) (apiclient.StopReport, error) {
	quiet, cancel := context.WithCancel(ctx)
	told := make(chan struct{})
	go func() {
		defer close(told)
		a.tellWhoRemains(quiet, api)
	}()
	report, err := api.Stop(ctx, wait, names...)
	cancel()
	<-told
	return report, err
}

// tellReleased tells how a release went that ended with err, nil or BuildersRemain: each
// builder and who remains, unless a summary has told that. When one did not leave, the
// error is an exitError and all is said.
func (a *app) tellReleased(report apiclient.StopReport, err error, told, whole bool) error {
	left, there := 0, 0
	for _, r := range report.Builders {
		if !told {
			writeReleased(a.stdout, r)
		}
		if !r.Left || r.AfterSeconds != nil {
			there++
		}
		if r.Left && r.AfterSeconds != nil {
			left++
		}
	}
	if report.Faults != nil {
		for _, fault := range *report.Faults {
			a.tellFault(printable(fault))
		}
	}
	fmt.Fprintf(a.stdout, "Released %d of %d builders in %s.\n", left, there,
		span(time.Duration(report.TookSeconds*float64(time.Second))))
	if err == nil {
		return nil
	}
	remain := fmt.Sprintf("%d of them did not leave in time.", there-left)
	if whole {
		remain += " The cluster is stopped all the same, and Nix\nbuilds locally."
	}
	remain += " A builder that lost its coordinator ends by itself after two leases;\ncancel its job if it does not."
	switch {
	case a.step == nil:
		fmt.Fprintf(a.stderr, "nix-builders stop: %s\n", remain)
	case !told:
		a.step.log.Warning("Builders did not leave", remain)
	}
	return &exitError{exitFailed}
}

// tellFault tells what a stop could not put right on the coordinator's host.
func (a *app) tellFault(fault string) {
	if a.step != nil {
		a.step.log.Warning("Fault on the coordinator's host", fault)
		return
	}
	fmt.Fprintf(a.stderr, "nix-builders stop: on the coordinator's host: %s\n", fault)
}

// tellWhoRemains keeps a person company whose stop takes long. It ends with ctx.
func (a *app) tellWhoRemains(ctx context.Context, api *apiclient.API) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		c, err := api.Cluster(ctx)
		if err != nil {
			continue // the stop itself says what is wrong
		}
		for _, b := range c.Builders {
			if b.State == "joined" || b.State == "ready" {
				fmt.Fprintf(a.stdout, "  waiting for %s\n", printable(b.Name))
			}
		}
	}
}
