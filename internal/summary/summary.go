// Package summary tells people how a cluster was: Markdown for the page of a workflow
// run, plain text for its log. It says what each builder did, what was used and saved,
// and what to do about what went wrong.
//
// Names, reasons and systems come from other machines: they are shown as they are and
// mean nothing in Markdown, HTML or Mermaid. What comes out is bounded, whatever goes in.
package summary

import (
	"fmt"
	"time"
)

// A Run is a cluster's life as far as it is known at one moment.
type Run struct {
	Cluster string
	// Failed is why the builders did not get ready; empty if they did.
	Failed string
	// Began is when the coordinator's work began. If zero, that is not known, and its own
	// minutes are left out.
	Began time.Time
	// Stopped is when the builders were told to leave. If zero, they were not.
	Stopped time.Time
	// At is when all this held. What has no end yet is counted up to here.
	At time.Time
	// Final says that the coordinator's job ends at At: only then is it known what the
	// builders' earlier departure saved.
	Final    bool
	Builders []Builder
	Losses   []Loss   // oldest first
	Faults   []string // what went wrong on the coordinator's own host
}

// A Builder is what became of one builder.
type Builder struct {
	Name    string
	Fate    Fate
	State   string // as the API has it
	Reason  string // why it is in this state
	Systems []string
	Cores   int // 0 if not known
	// Each of these is zero if it did not happen. Left is also when it was lost.
	Joined, Ready, Left time.Time
	// PeakBuilds and Busy are what was seen of its builds; nil if nobody looked.
	PeakBuilds *int
	Busy       *time.Duration // summed over builds
}

// A Loss is one time that a builder fell silent.
type Loss struct {
	Builder string
	At      time.Time
	Reason  string
	Back    time.Time // when it was heard again; zero if it was not
}

// Fate is what became of a builder, in the words of a summary.
type Fate int

// What becomes of builders.
const (
	There     Fate = iota // it is there, and nobody told it to leave
	Released              // it left because it was told to
	Unready               // as Released, and its store had never answered
	Missing               // it never came
	OwnWay                // it left without being told
	Lost                  // it fell silent
	Rejected              // it can't be used
	Remaining             // it was told to leave and did not
)

var fates = [...]string{
	There: "there", Released: "released", Unready: "released, never ready", Missing: "never came", OwnWay: "left by itself",
	Lost: "lost", Rejected: "rejected", Remaining: "did not leave",
}

func (f Fate) String() string {
	if f < 0 || int(f) >= len(fates) {
		return "unknown"
	}
	return fates[f]
}

// trouble says that a person may have to do something about it.
func (f Fate) trouble() bool { return f != There && f != Released }

// state is a builder's fate and, where it matters, the reason.
func (b *Builder) state() string {
	switch {
	case b.Fate == There && b.Ready.IsZero() && b.Reason != "":
		return "not ready: " + b.Reason
	case b.Fate == There:
		return b.State
	case b.Fate == Remaining && b.State != "lost":
		return fmt.Sprintf("%s, is still %s", b.Fate, b.State)
	case b.Fate == OwnWay && b.Reason != "":
		return b.Reason // which says that it left
	case b.Fate == Released, b.Fate == Unready, b.Fate == Missing, b.Reason == "":
		return b.Fate.String()
	}
	return b.Fate.String() + ": " + b.Reason
}

// stay is how long a runner was this builder, up to now.
func (b *Builder) stay(now time.Time) time.Duration {
	if b.Joined.IsZero() {
		return 0
	}
	end := b.Left
	if end.IsZero() {
		end = now
	}
	return max(end.Sub(b.Joined), 0)
}

// used is what the builders used, and what the coordinator did.
func (r *Run) used() (builders, coordinator time.Duration) {
	for i := range r.Builders {
		builders += r.Builders[i].stay(r.At)
	}
	if !r.Began.IsZero() {
		coordinator = max(r.At.Sub(r.Began), 0)
	}
	return builders, coordinator
}

// saved is what the builders would have used besides, had they stayed until now.
func (r *Run) saved() (d time.Duration, released int) {
	for _, b := range r.Builders {
		if (b.Fate == Released || b.Fate == Unready) && !b.Left.IsZero() {
			d += max(r.At.Sub(b.Left), 0)
			released++
		}
	}
	return d, released
}

// count returns how many builders had each fate.
func (r *Run) count() map[Fate]int {
	n := map[Fate]int{}
	for _, b := range r.Builders {
		n[b.Fate]++
	}
	return n
}
