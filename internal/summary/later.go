package summary

import (
	"fmt"
	"strings"
	"time"
)

// Told is what an earlier summary of the same run told, for the next one.
type Told struct {
	At     time.Time         `json:"at"`
	States map[string]string `json:"states"` // by builder
}

// Told is what this summary tells.
func (r *Run) Told() Told {
	t := Told{At: r.At, States: make(map[string]string, len(r.Builders))}
	for _, b := range r.Builders {
		t.States[b.Name] = b.State
	}
	return t
}

// Later tells in Markdown only what was not told before; empty if that is nothing.
func (r *Run) Later(before Told) string {
	lines := r.later(before, md)
	if len(lines) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("### Distributed Nix builds, after the stop\n\n")
	for _, line := range lines {
		fmt.Fprintf(&b, "- %s\n", line)
	}
	return b.String()
}

// LaterText is Later for a log.
func (r *Run) LaterText(before Told) string {
	lines := r.later(before, plain)
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\n") + "\n"
}

func (r *Run) later(before Told, show func(string, int) string) []string {
	var lines []string
	if r.Final {
		if _, released := r.saved(); released > 0 && r.Failed == "" {
			lines = append(lines, r.savedByStop())
		}
	}
	changed := 0
	for _, b := range r.Builders {
		if was, told := before.States[b.Name]; told && was == b.State {
			continue
		}
		if changed++; changed <= maxListed {
			lines = append(lines, fmt.Sprintf("Since %s: %s %s.", clock(before.At), show(b.Name, maxName), show(b.state(), maxReason)))
		}
	}
	if more := changed - maxListed; more > 0 {
		lines = append(lines, counted(more, "more builder")+" changed.")
	}
	return lines
}
