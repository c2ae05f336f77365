package summary

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// maxBars is how many builders the diagram shows one by one; of more, it shows one bar
// for all of a system.
const maxBars = 36

// A bar is one line of the diagram.
type bar struct {
	section, label string // safe for the diagram
	kind           string // active, done or crit: blue, grey or red
	from, to       time.Time
}

// gantt is a diagram of who was there when; empty where nobody was.
func (r *Run) gantt() string {
	bars := r.bars()
	if len(bars) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("```mermaid\ngantt\n    dateFormat YYYY-MM-DD HH:mm:ss\n    axisFormat %H:%M:%S\n")
	if !r.Began.IsZero() {
		b.WriteString("    section coordinator\n")
		writeBar(&b, bar{label: "coordinator", kind: "active", from: r.Began, to: r.At})
		if !r.Stopped.IsZero() {
			fmt.Fprintf(&b, "    · stop :milestone, %s, 0s\n", moment(r.Stopped))
		}
	}
	section := ""
	for _, one := range bars {
		if one.section != section {
			section = one.section
			fmt.Fprintf(&b, "    section %s\n", section)
		}
		writeBar(&b, one)
	}
	b.WriteString("```\n")
	return b.String()
}

// writeBar writes a bar. The dot keeps a name that is a word of the diagram's language
// from being one.
func writeBar(b *strings.Builder, one bar) {
	// A bar of no length is not drawn.
	to := one.to
	if to.Before(one.from.Add(time.Second)) {
		to = one.from.Add(time.Second)
	}
	fmt.Fprintf(b, "    · %s :%s, %s, %s\n", one.label, one.kind, moment(one.from), moment(to))
}

// bars are those of the builders that came, by system, or else one for each system.
func (r *Run) bars() []bar {
	var all []bar
	for _, b := range r.Builders {
		if b.Joined.IsZero() {
			continue
		}
		one := bar{section: "unknown", label: label(b.Name, maxName), kind: "active", from: b.Joined, to: b.Joined.Add(b.stay(r.At))}
		if len(b.Systems) > 0 {
			one.section = cmp.Or(label(b.Systems[0], 32), "unknown")
		}
		switch b.Fate {
		case There, Released:
		case OwnWay, Unready:
			one.kind = "done"
		default:
			one.kind = "crit"
		}
		all = append(all, one)
	}
	slices.SortStableFunc(all, func(a, b bar) int { return cmp.Compare(a.section, b.section) })
	if len(all) <= maxBars {
		return all
	}
	var groups []bar
	var sizes []int
	for _, one := range all {
		if n := len(groups); n > 0 && (groups[n-1].section == one.section || n == maxBars) {
			g := &groups[n-1]
			if one.from.Before(g.from) {
				g.from = one.from
			}
			if one.to.After(g.to) {
				g.to = one.to
			}
			if one.kind == "crit" {
				g.kind = one.kind
			}
			sizes[n-1]++
			continue
		}
		groups, sizes = append(groups, one), append(sizes, 1)
	}
	for i := range groups {
		groups[i].label = counted(sizes[i], "builder")
		if i == maxBars-1 {
			groups[i].section = "others"
		}
	}
	return groups
}

// moment is a time as the diagram reads and shows it, which knows no zones: UTC.
func moment(t time.Time) string { return t.UTC().Format(time.DateTime) }
