package summary

import (
	"fmt"
	"strings"
	"time"
)

// outcome is the run in one line.
func (r *Run) outcome() string {
	n := r.count()
	var parts []string
	part := func(fates int, one, many string) {
		switch {
		case fates == 1:
			parts = append(parts, "1 "+one)
		case fates > 1:
			parts = append(parts, fmt.Sprintf("%d %s", fates, many))
		}
	}
	part(n[There], "is there", "are there")
	part(n[Released]+n[Unready], "was released", "were released")
	part(n[Remaining], "did not leave", "did not leave")
	part(n[Lost], "was lost", "were lost")
	part(n[OwnWay], "left by itself", "left by themselves")
	part(n[Rejected], "was rejected", "were rejected")
	part(n[Missing], "never came", "never came")
	text := "no builders"
	if total := len(r.Builders); total > 0 {
		text = fmt.Sprintf("of %s, %s", counted(total, "builder"), strings.Join(parts, ", "))
	}
	if all := len(r.Builders); n[Released] == all && all > 1 {
		text = fmt.Sprintf("all %d builders were released", all)
	} else if all == 1 && len(parts) == 1 {
		text = "the builder " + strings.TrimPrefix(parts[0], "1 ")
	}
	if r.Failed != "" {
		return "the builders did not get ready: " + text
	}
	return text
}

// usage is what was used and saved, a sentence or more a line.
func (r *Run) usage() []string {
	builders, own := r.used()
	line := fmt.Sprintf("Runner minutes: %s of builders, from joining to leaving.", minutes(builders))
	if !r.Began.IsZero() {
		soFar := " so far"
		if r.Final {
			soFar = ""
		}
		line = fmt.Sprintf("Runner minutes: %s, of which %s of builders, from joining to leaving, and %s of the coordinator%s.",
			minutes(builders+own), minutes(builders), minutes(own), soFar)
	}
	lines := []string{
		line + " These are minutes of the clock; GitHub counts each job from its beginning, rounds it up, and bills macOS tenfold.",
	}
	if s := r.savings(); s != "" {
		lines = append(lines, s)
	}
	idle, known := 0, 0
	for _, b := range r.Builders {
		if b.PeakBuilds != nil && !b.Ready.IsZero() {
			known++
			if *b.PeakBuilds == 0 {
				idle++
			}
		}
	}
	switch {
	case idle == 0 || r.Failed != "":
	case idle == known:
		lines = append(lines, "No build was seen on any builder.")
	default:
		lines = append(lines, fmt.Sprintf("No build was seen on %d of %d builders.", idle, known))
	}
	return lines
}

// savings is what the stop was good for; empty where there was none.
func (r *Run) savings() string {
	saved, released := r.saved()
	switch {
	case released == 0, r.Failed != "": // a cluster that failed released them itself
		return ""
	case !r.Final:
		return "Those that were released do not wait for the rest of this job."
	case saved < 6*time.Second: // which would be 0.0 or 0.1 minutes
		return "The builders were held until the end of this job. Call stop-nix-builders as soon as the build is done, to have them earlier."
	}
	return r.savedByStop()
}

// savedByStop is for a stop that is known to have been called before the job's end.
func (r *Run) savedByStop() string {
	saved, _ := r.saved()
	return fmt.Sprintf("The early stop saved %s runner minutes: the builders ended that much before this job, summed.", minutes(saved))
}

// An advice is what to do about some builders.
type advice struct {
	about string
	who   []string // names as the API has them
	what  string
}

// advices are what to do about what went wrong.
func (r *Run) advices() []advice {
	var all []advice
	for _, a := range []struct {
		fate        Fate
		about, what string
	}{
		{Remaining, "Did not leave", "Cancel the job if it still runs. By itself it ends two leases after it last heard its coordinator."},
		{Lost, "Lost", "Was the job cancelled, or did the runner run out of memory or disk? The end of the job's log tells. A smaller max_jobs needs less memory."},
		{OwnWay, "Left without being told to", "The end of the job's log says why."},
		{Rejected, "Can't be used", "The table says why."},
		{Unready, "Came, but the Nix store did not answer over SSH", "Does the tailnet's policy let the coordinator reach port 22 there, and use SSH as root?"},
		{Missing, "Never came", `Did the job start, and under this very name? Its log says whether it joined the tailnet and which coordinators it saw. "Re-run failed jobs" does not run builders again: re-run all jobs.`},
	} {
		var who []string
		for _, b := range r.Builders {
			if b.Fate == a.fate {
				who = append(who, b.Name)
			}
		}
		if len(who) > 0 {
			all = append(all, advice{a.about, who, a.what})
		}
	}
	return all
}

const (
	// maxNamed is how many builders an advice names, maxListed how many losses and faults
	// are told.
	maxNamed, maxListed = 4, 6
	// maxName and maxReason bound texts of others outside the table, in characters.
	maxName, maxReason = 64, 240
)

// names are the first of who, each shown by show, and how many more there are.
func names(who []string, show func(string, int) string) string {
	var shown []string
	for _, name := range who[:min(len(who), maxNamed)] {
		shown = append(shown, show(name, maxName))
	}
	if more := len(who) - maxNamed; more > 0 {
		shown = append(shown, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(shown, ", ")
}

// remarks are the losses, the faults and the advice, a line each, with what others said
// shown by show. None begins with what others said, which might be a list there.
func (r *Run) remarks(show func(string, int) string) []string {
	var lines []string
	for _, l := range r.Losses[:min(len(r.Losses), maxListed)] {
		line := fmt.Sprintf("At %s %s was lost (%s)", clock(l.At), show(l.Builder, maxName), show(l.Reason, maxReason))
		if !l.Back.IsZero() {
			line += ", and was heard again at " + clock(l.Back)
		}
		lines = append(lines, line+".")
	}
	if more := len(r.Losses) - maxListed; more > 0 {
		lines = append(lines, counted(more, "more loss", "more losses")+".")
	}
	for _, f := range r.Faults[:min(len(r.Faults), maxListed)] {
		lines = append(lines, "On the coordinator's host: "+show(f, maxReason))
	}
	for _, a := range r.advices() {
		lines = append(lines, fmt.Sprintf("%s: %s. %s", a.about, names(a.who, show), a.what))
	}
	return lines
}

// did is what was seen of a builder's builds.
func (b *Builder) did() string {
	switch {
	case b.PeakBuilds == nil && b.Busy == nil:
		return "-"
	case b.PeakBuilds != nil && *b.PeakBuilds == 0 && (b.Busy == nil || *b.Busy == 0):
		return "no build seen"
	case b.PeakBuilds == nil:
		return span(*b.Busy) + " of builds"
	case b.Busy == nil:
		return fmt.Sprintf("up to %d at a time", *b.PeakBuilds)
	}
	return fmt.Sprintf("%s of builds, up to %d at a time", span(*b.Busy), *b.PeakBuilds)
}

func counted(n int, one string, many ...string) string {
	switch {
	case n == 1:
		return "1 " + one
	case len(many) > 0:
		return fmt.Sprintf("%d %s", n, many[0])
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// minutes is a duration in minutes, as precisely as bills need it.
func minutes(d time.Duration) string { return fmt.Sprintf("%.1f", d.Minutes()) }

// span is a duration as precisely as a person cares.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	}
	return fmt.Sprintf("%.1f h", d.Hours())
}

// clock is a time of the day, UTC; - for none.
func clock(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.TimeOnly)
}
