package summary

import (
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// Of makes a Run of what the API tells: the cluster as it is at now, the report of its
// stop, and the events of its life, as far as they are kept. The caller adds what the
// API does not know, Began and Final.
func Of(now time.Time, c apiclient.Cluster, stop apiclient.StopReport, events []apiclient.Event) Run {
	r := Run{Cluster: c.Id, At: now, Stopped: stop.StoppedAt, Losses: losses(events)}
	if stop.Faults != nil {
		r.Faults = *stop.Faults
	}
	var failed time.Time // when a cluster that failed told its builders to leave
	if c.Phase == "failed" {
		r.Failed, failed = c.Reason, c.Since
	}
	for _, e := range events {
		if e.Type == "cluster.failed" {
			r.Failed, failed = e.Reason, e.At
		}
	}
	told := make(map[string]apiclient.Released)
	for _, b := range stop.Builders {
		told[b.Name] = b
	}
	for _, b := range c.Builders {
		// A stop knows best what it did; it may be older than the cluster.
		report, asked := told[b.Name]
		released := asked && report.AfterSeconds != nil ||
			!failed.IsZero() && b.LeftAt != nil && !b.LeftAt.Before(failed)
		r.Builders = append(r.Builders, builderOf(b, fateOf(b, released, asked && !report.Left)))
	}
	return r
}

func builderOf(b apiclient.Builder, fate Fate) Builder {
	out := Builder{
		Name: b.Name, Fate: fate, State: string(b.State), Reason: b.Reason,
		Joined: orZero(b.JoinedAt), Ready: orZero(b.ReadyAt), Left: orZero(b.LeftAt),
	}
	if b.Offer != nil {
		out.Systems, out.Cores = b.Offer.Systems, b.Offer.Cores
	}
	if b.Vitals != nil {
		out.PeakBuilds = b.Vitals.PeakBuilds
		if s := b.Vitals.BusySeconds; s != nil {
			out.Busy = new(time.Duration(*s * float64(time.Second)))
		}
	}
	return out
}

// fateOf is a builder's fate. released says that it left because it was told to, remained
// that it had not left when the stop's wait was over.
func fateOf(b apiclient.Builder, released, remained bool) Fate {
	switch b.State {
	case "expected":
		return Missing
	case "rejected":
		return Rejected
	case "lost":
		if remained {
			return Remaining
		}
		return Lost
	case "departed":
		switch {
		case !released && !remained:
			return OwnWay
		case b.ReadyAt == nil:
			return Unready
		}
		return Released
	}
	if remained {
		return Remaining
	}
	return There
}

// losses are the times that a builder was lost, each with when it was heard again.
func losses(events []apiclient.Event) []Loss {
	var all []Loss
	open := make(map[string]int) // by builder: its loss that has no end yet
	for _, e := range events {
		if e.Builder == nil {
			continue
		}
		switch e.Type {
		case "builder.lost":
			open[*e.Builder] = len(all)
			all = append(all, Loss{Builder: *e.Builder, At: e.At, Reason: e.Reason})
		case "builder.joined":
			if i, lost := open[*e.Builder]; lost {
				all[i].Back = e.At
				delete(open, *e.Builder)
			}
		}
	}
	return all
}

func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}
