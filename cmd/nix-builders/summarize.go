package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/rundir"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/summary"
)

// What the coordinator's directory keeps for summaries.
const (
	begunFile = "begun.json" // when the coordinator began
	toldFile  = "told.json"  // what a summary has told; the job's user writes it too
)

type begun struct {
	At time.Time `json:"at"`
}

// summaryBound is what the end of a cluster may take longer for its summary's sake.
const summaryBound = 2 * time.Second

// noteBegin leaves what later summaries need. Without it they say less.
func (a *app) noteBegin(d *rundir.Dir) {
	if a.step == nil {
		return
	}
	err := d.Save(begunFile, 0o644, begun{a.began})
	if err == nil {
		err = d.Save(toldFile, 0o664, summary.Told{})
	}
	if err == nil {
		// Stop-nix-builders runs as the job's user.
		err = os.Chown(d.Path(toldFile), -1, jobGroup())
	}
	if err != nil {
		a.log.Warn("prepare the summary", "error", err)
	}
}

// lookBack asks what there is to tell of a cluster that is being stopped.
func (a *app) lookBack(ctx context.Context, api *apiclient.API, report apiclient.StopReport) (summary.Run, error) {
	ctx, cancel := context.WithTimeout(ctx, summaryBound)
	defer cancel()
	c, err := api.Cluster(ctx)
	if err != nil {
		return summary.Run{}, err
	}
	events, err := api.History(ctx, c.Event)
	if err != nil {
		a.log.Debug("the summary goes without the events", "error", err)
	}
	return summary.Of(time.Now(), c, report, events), nil
}

// summarize tells how the cluster was, in the step's log and summary: all of it, or only
// what an earlier summary did not tell. It says whether it told; that it can't must not
// fail anything.
func (a *app) summarize(ctx context.Context, api *apiclient.API, report apiclient.StopReport, final bool) bool {
	if a.step == nil {
		return false
	}
	r, err := a.lookBack(ctx, api, report)
	if err != nil {
		a.log.Warn("no summary", "error", err)
		return false
	}
	// A coordinator on another host is asked for its cluster, not for its files.
	d := rundir.At(a.set.Files.StateDir, r.Cluster, rundir.Coordinator)
	var begin begun
	var before summary.Told
	if d.Load(begunFile, &begin) == nil {
		r.Began = begin.At
	}
	_ = d.Load(toldFile, &before) // nothing told, then
	r.Final = final

	text, markdown := r.Text(), r.Markdown()
	if !before.At.IsZero() {
		text, markdown = r.LaterText(before), r.Later(before)
	}
	fmt.Fprint(a.stdout, text)
	if err := a.step.files.AddSummary(markdown); markdown != "" && err != nil {
		a.log.Warn("no summary on the run's page", "error", err)
		return text != ""
	}
	a.warn(r, before)
	if err := keepTold(d, r.Told()); err != nil {
		a.log.Debug("the next summary repeats this one", "error", err)
	}
	return before.At.IsZero()
}

// keepTold writes over a file that is there, since the job's user may make none in root's
// directory.
func keepTold(d *rundir.Dir, t summary.Told) error {
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(d.Path(toldFile), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

// warn shows beside the run which builders went wrong, other than told before.
func (a *app) warn(r summary.Run, before summary.Told) {
	for _, w := range []struct {
		fate           summary.Fate
		title, message string
	}{
		{summary.Lost, "Builders were lost", "Was the job cancelled, or did the runner run out of memory or disk? The end of the builder's log tells."},
		{summary.Remaining, "Builders did not leave", "The cluster is stopped all the same, and Nix builds locally. A builder that lost its coordinator ends by itself after two leases; cancel its job if it does not."},
	} {
		var lost []string
		for _, b := range r.Builders {
			if b.Fate == w.fate && before.States[b.Name] != b.State {
				lost = append(lost, fmt.Sprintf("%s (%s)", printable(b.Name), clip(printable(b.Reason))))
			}
		}
		if len(lost) > 0 {
			a.step.log.Warning(w.title, fewOf(lost)+". "+w.message)
		}
	}
}

// fewOf lists the first of many.
func fewOf(all []string) string {
	const few = 10
	if more := len(all) - few; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:few], ", "), more)
	}
	return strings.Join(all, ", ")
}

// summarizeEnd ends the cluster of this host over its API, as the end of its server would
// do, and tells how it was. The server answers no more afterwards.
func (a *app) summarizeEnd(d *rundir.Dir) {
	if a.step == nil {
		return
	}
	server, err := d.Server()
	if err != nil {
		return // it never began
	}
	if !server.Supervisor.Alive() {
		a.step.log.Warning("The coordinator's server had ended", "What became of the builders is not known; the server's log is in the log of this step. Builders end by themselves two leases after they last heard it.")
		return
	}
	api, err := apiOf(server)
	if err != nil {
		a.log.Warn("no summary", "error", err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lastStop)
	defer cancel()
	// An error is no reason to be silent: the report is there, or the cluster tells.
	report, err := api.Stop(ctx, summaryBound)
	if err != nil {
		a.log.Debug("stop the cluster for its summary", "error", err)
	}
	a.summarize(context.WithoutCancel(ctx), api, report, true)
}
