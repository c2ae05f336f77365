package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/rundir"
)

// gatherSlack is how much longer than its builders the coordinator waits for them, where
// the settings don't say how long.
const gatherSlack = time.Minute

// gather follows the cluster until it is ready, and says what happens meanwhile. The
// server decides when the wait is over; this only has to outlive it a little.
func (a *app) gather(ctx context.Context, d *rundir.Dir) error {
	server, err := d.Server()
	if err != nil {
		return err
	}
	api, err := apiOf(server)
	if err != nil {
		return err
	}
	begin := time.Now()
	a.noteBegin(d)
	bound, cancel := context.WithTimeout(ctx, time.Duration(a.set.Coordinator.GatherTimeout)+30*time.Second)
	defer cancel()
	endGroup := a.group(fmt.Sprintf("Waiting for %d builders", len(a.set.Coordinator.Builders)))
	defer endGroup()
	fmt.Fprintf(a.stdout, "Waiting for the builders of %s (%d) at %s\n", server.Cluster, len(a.set.Coordinator.Builders), server.API)
	var last apiclient.Cluster
	for c, err := api.Cluster(bound); ; c, err = api.AwaitCluster(bound, last.Revision, refresh) {
		switch {
		case errors.Is(context.Cause(ctx), errServerEnded):
			return context.Cause(ctx)
		case ctx.Err() != nil:
			endGroup()
			return a.cancelGathering(ctx, api)
		case bound.Err() != nil:
			return errors.New("the server does not say how gathering ended; its log is " + d.LogPath())
		case err != nil && !server.Supervisor.Alive():
			endGroup()
			fmt.Fprintf(a.stderr, "%s:\n%s\n", d.LogPath(), tail(d.LogPath(), 20))
			return fmt.Errorf("gather builders: %w", errServerEnded)
		case err != nil:
			// The supervisor starts a dead server again.
			a.log.Warn("the server does not answer", "error", err)
			select {
			case <-time.After(500 * time.Millisecond):
			case <-bound.Done():
			}
			continue
		}
		a.tellChanges(last, c)
		before := last
		last = c
		switch c.Phase {
		case "gathering":
		case "ready":
			endGroup()
			return a.announce(server, c, time.Since(begin))
		case "failed":
			endGroup()
			return a.gatheringFailed(whileGathering(before, c))
		default:
			return fmt.Errorf("gather builders: the cluster is %s: %s", c.Phase, printable(c.Reason))
		}
	}
}

// whileGathering is a cluster that failed with its builders as they were waited for. They are
// told to leave when it fails, and that those who were quick have left is not why it failed.
func whileGathering(before, failed apiclient.Cluster) apiclient.Cluster {
	failed.Builders = slices.Clone(failed.Builders)
	for i, b := range failed.Builders {
		was := slices.IndexFunc(before.Builders, func(o apiclient.Builder) bool { return o.Name == b.Name })
		if b.State == "departed" && before.Phase == "gathering" && was >= 0 && before.Builders[was].State != "expected" {
			failed.Builders[i] = before.Builders[was]
		}
	}
	return failed
}

// tellChanges prints a line for each builder that changed.
func (a *app) tellChanges(last, now apiclient.Cluster) {
	before := make(map[string]apiclient.Builder)
	for _, b := range last.Builders {
		before[b.Name] = b
	}
	for _, b := range now.Builders {
		was := before[b.Name]
		if b.State == was.State && b.Reason == was.Reason || b.State == "expected" {
			continue
		}
		line := fmt.Sprintf("  %s is %s", printable(b.Name), b.State)
		if b.State == was.State {
			line = fmt.Sprintf("  %s is still %s: %s", printable(b.Name), b.State, printable(b.Reason))
		} else if b.State == "joined" && b.Offer != nil {
			line += fmt.Sprintf(": %s, %d cores, %s memory, %s free, Nix %s", printable(strings.Join(b.Offer.Systems, " ")),
				b.Offer.Cores, size(b.Offer.MemoryBytes), size(b.Offer.StoreFreeBytes), printable(b.Offer.NixVersion))
		} else if b.Reason != "" && b.Reason != coordinator.StoreAnswered {
			line += ": " + printable(b.Reason)
		}
		fmt.Fprintln(a.stdout, line)
	}
}

// gatheringFailed says who is missing and what to check.
func (a *app) gatheringFailed(c apiclient.Cluster) error {
	err := fmt.Errorf("gather builders: %s", printable(c.Reason))
	if a.step == nil {
		writeMissing(a.stderr, c, a.set, time.Now())
		fmt.Fprintln(a.stderr, "\nThe builders that came were released.")
		return err
	}
	// What to check stands beside the run; who is missing would be too long there.
	fmt.Fprintf(a.stdout, "%s The builders that came were released. Not ready:\n", readyCount(c))
	writeNotReady(a.stdout, c, time.Now())
	var checks strings.Builder
	writeChecks(&checks, c, a.set)
	if more := a.rerun(); more != "" && slices.ContainsFunc(c.Builders, func(b apiclient.Builder) bool { return b.State == "expected" }) {
		checks.WriteString("- " + more + "\n")
	}
	return &titledError{"Builders are missing", fmt.Errorf("%w\n%s", err, strings.TrimSpace(checks.String()))}
}

// announce says that the cluster is ready and what one can do with it.
func (a *app) announce(server rundir.Server, c apiclient.Cluster, took time.Duration) error {
	if err := a.installStop(); err != nil {
		return err
	}
	if err := a.setOutputs(server, c, time.Since(a.began)); err != nil {
		return err
	}
	fmt.Fprintln(a.stdout)
	writeCluster(a.stdout, c, time.Now())
	fmt.Fprintf(a.stdout, "\nReady after %s. Nix builds on these machines now; stop-nix-builders releases them.\nNIX_BUILDERS_API=%s\n",
		span(took), server.API)
	return nil
}

// cancelBound is what a cancelled coordinator gives its builders to leave.
const cancelBound = 5 * time.Second

// cancelGathering releases whoever came: the person who cancelled wants no builders.
func (a *app) cancelGathering(ctx context.Context, api *apiclient.API) error {
	fmt.Fprintln(a.stdout, "Cancelled; releasing the builders.")
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelBound+time.Second)
	defer cancel()
	report, err := a.release(last, api, 0, cancelBound, nil)
	if err != nil && !errors.Is(err, problem.BuildersRemain) {
		a.log.Warn("release the builders", "error", err)
		return context.Cause(ctx)
	}
	_ = a.tellReleased(report, err, false, true) // the exit code is that of the cancelling
	return context.Cause(ctx)
}

// tail returns the last lines of a file, for a person; empty if it can't be read.
func tail(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	all := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return string(bytes.Join(all[max(len(all)-lines, 0):], []byte("\n")))
}
