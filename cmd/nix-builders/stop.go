package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

var stopCommand = command{
	name:    "stop",
	args:    "[--drain[=DURATION]] [--wait DURATION] [BUILDER...]",
	summary: "release the builders, all or the named ones (also: stop-nix-builders)",
	detail: `Tells the coordinator to stop the cluster, waits until the builders have left, and
shows each. May be called as often as you like. The exit code is 0 when all have left.
Later nix commands build on this host alone. In a workflow on GitHub it also writes the
job summary: what became of each builder, and what to do about those that went wrong.

Builds that run on the builders are cut off, and it says how many. With --drain they may
end first: builders get no new builds, each is released as soon as none runs on it, and
what still runs when the time is over is cut off.

With names, only those builders are released and the cluster goes on.

  --drain[=DURATION]   let builds that run end, for 10 min or so long, 6 h at most
  --wait DURATION      wait so long for builders to leave, 5 min at most (default 30s)`,
	run: func(ctx context.Context, a *app, args []string) error {
		wait, drain := seconds(30*time.Second), drainFlag(0)
		names, err := a.flags("stop", args, func(fs *flag.FlagSet) {
			fs.Func("wait", "", wait.Decode)
			fs.Var(&drain, "drain", "")
		})
		if err != nil {
			return err
		}
		if d := time.Duration(wait); d < 0 || d > 5*time.Minute {
			return usagef("--wait %v is out of range, want 0s to 5m", d)
		}
		if d := time.Duration(drain); d != 0 && d < time.Second || d > 6*time.Hour {
			return usagef("--drain %v is out of range, want 1s to 6h", d)
		}
		for _, name := range names {
			switch _, err := time.ParseDuration(name); {
			case strings.HasPrefix(name, "-"):
				return usagef("%s stands behind a builder's name: flags come first", clip(name))
			case drain > 0 && err == nil:
				return usagef("%s is no builder: write --drain=%[1]s", clip(name))
			}
		}
		api, err := a.set.reach()
		if err != nil {
			return err
		}
		if drain > 0 {
			fmt.Fprintf(a.stdout, "Letting builds that run on the builders end, for %s at most.\n", span(time.Duration(drain)))
		}
		report, err := a.release(ctx, api, time.Duration(drain), time.Duration(wait), names)
		if err != nil && !errors.Is(err, problem.BuildersRemain) {
			return err
		}
		told := len(names) == 0 && a.summarize(ctx, api, report, false)
		return a.tellReleased(report, err, told, len(names) == 0)
	},
}

// defaultDrain is what --drain without a time gives builds to end.
const defaultDrain = 10 * time.Minute

// drainFlag is how long builds get to end; as a flag it may do without a value.
type drainFlag seconds

func (d *drainFlag) String() string   { return time.Duration(*d).String() }
func (d *drainFlag) IsBoolFlag() bool { return true }

func (d *drainFlag) Set(value string) error {
	if value == "true" { // the flag alone
		*d = drainFlag(defaultDrain)
		return nil
	}
	return (*seconds)(d).Decode(value)
}

// stopRetry is how long a stop goes on asking a server that died in the middle of it: its
// supervisor starts it again, and it then goes on with the drain.
const stopRetry = 5 * time.Second

// release tells builders to leave, after a drain if there is time for one, and waits for
// them.
func (a *app) release(ctx context.Context, api *apiclient.API, drain, wait time.Duration, names []string) (apiclient.StopReport, error) {
	quiet, cancel := context.WithCancel(ctx)
	told := make(chan struct{})
	go func() {
		defer close(told)
		a.tellWhoRemains(quiet, api)
	}()
	report, err := a.stopSurely(ctx, api, drain, wait, names)
	cancel()
	<-told
	return report, err
}

// stopSurely stops, again if the server dies meanwhile: a stop can be repeated. A drain that
// is asked for again gets what is left of its time, and none is asked for when all of it and
// of the wait is over.
func (a *app) stopSurely(ctx context.Context, api *apiclient.API, drain, wait time.Duration, names []string) (apiclient.StopReport, error) {
	asked := time.Now()
	var since time.Time // of the first call in a row that was not answered
	for {
		began := time.Now()
		report, err := api.Drain(ctx, (drain - began.Sub(asked)).Round(time.Second), wait, names...)
		refused, answered := errors.AsType[*apiclient.ProblemError](err)
		if err == nil || ctx.Err() != nil || answered && refused.Slug != problem.Unavailable {
			return report, err
		}
		if since.IsZero() || time.Since(began) > stopRetry {
			since = time.Now()
			a.log.Warn("the coordinator's server did not answer the stop; trying again", "for", stopRetry, "error", err)
		}
		if time.Since(since) > stopRetry || time.Since(asked) > drain+wait+stopRetry {
			return report, err
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return report, context.Cause(ctx)
		}
	}
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
	fmt.Fprintf(a.stdout, "Released %d of %d builders in %s. %s\n", left, there,
		span(time.Duration(report.TookSeconds*float64(time.Second))), cutOff(report))
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

// cutOff says how many builds a stop cut off.
func cutOff(report apiclient.StopReport) string {
	switch n := report.BuildsCut; {
	case n == nil:
		return "No build was cut off."
	case *n == 1:
		return "1 build was cut off."
	default:
		return fmt.Sprintf("%d builds were cut off.", *n)
	}
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
	pause := 5 * time.Second
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, time.Minute) // a drain may take hours
		c, err := api.Cluster(ctx)
		if err != nil {
			continue // the stop itself says what is wrong
		}
		for _, b := range c.Builders {
			switch b.State {
			case "draining":
				fmt.Fprintf(a.stdout, "  waiting for %s: %s\n", printable(b.Name), printable(b.Reason))
			case "joined", "ready", "cordoned":
				fmt.Fprintf(a.stdout, "  waiting for %s\n", printable(b.Name))
			}
		}
	}
}
