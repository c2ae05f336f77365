package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/measure"
)

// A comparison is one row of a table: one thing, measured in several ways.
type comparison struct {
	Suite     string       `json:"suite"`
	Nix       string       `json:"nix"`
	Benchmark string       `json:"benchmark"`
	What      string       `json:"what"`
	Unit      measure.Unit `json:"unit"`
	Cells     []*cell      `json:"cells"`
	Aims      []aim        `json:"aims,omitempty"`
}

// A cell is what was measured in one way.
type cell struct {
	Way      way            `json:"way"`
	Values   []float64      `json:"values"`             // of builds that ended well
	Outcomes map[string]int `json:"outcomes,omitempty"` // of the others: how often
	Notes    []string       `json:"notes,omitempty"`    // one a build, where there is more to say
}

// An aim bounds the median of ours by that of another way.
type aim struct {
	Over   way     `json:"over"`
	AtMost float64 `json:"at_most"` // ours over the other
}

// of returns the cell of a way, which may have nothing in it.
func (c *comparison) of(w way) *cell {
	i := slices.IndexFunc(c.Cells, func(one *cell) bool { return one.Way == w })
	if i < 0 {
		return &cell{Way: w}
	}
	return c.Cells[i]
}

// put returns the cell of a way to put something in.
func (c *comparison) put(w way) *cell {
	one := c.of(w)
	if !slices.Contains(c.Cells, one) {
		c.Cells = append(c.Cells, one)
	}
	return one
}

// aiming gives the row an aim.
func (c *comparison) aiming(over way, atMost float64) *comparison {
	c.Aims = append(c.Aims, aim{over, atMost})
	return c
}

func (c *comparison) add(w way, v float64) {
	one := c.put(w)
	one.Values = append(one.Values, v)
}

func (c *comparison) took(w way, d time.Duration) { c.add(w, d.Seconds()) }

// ended takes in the time of a build, or what became of it instead.
func (c *comparison) ended(w way, b built) {
	if b.outcome() == "" {
		c.took(w, b.wall)
		return
	}
	c.instead(w, b.outcome())
}

// instead takes in what became of a build that has no value.
func (c *comparison) instead(w way, what string) {
	one := c.put(w)
	if one.Outcomes == nil {
		one.Outcomes = map[string]int{}
	}
	one.Outcomes[what]++
}

// note adds what the table says of a way's last build, in parentheses.
func (c *comparison) note(w way, text string) {
	one := c.put(w)
	one.Notes = append(one.Notes, text)
}

func (c *cell) quantile(q float64) float64 {
	return measure.New("", "", "").Add(c.Values...).Quantile(q)
}

// text is the cell as the table shows it: the median, and the least and the most.
func (c *cell) text(u measure.Unit) string {
	var parts []string
	if n := len(c.Values); n > 0 {
		text := u.Format(c.quantile(.5))
		if n > 1 {
			text += fmt.Sprintf(" (%s to %s)", u.Format(c.quantile(0)), u.Format(c.quantile(1)))
		}
		parts = append(parts, text)
	}
	all := len(c.Values)
	for _, n := range c.Outcomes {
		all += n
	}
	for _, what := range []string{"fails", "hangs", "unused"} {
		if n := c.Outcomes[what]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d of %d times", what, n, all))
		}
	}
	if len(c.Notes) > 0 {
		parts = append(parts, c.Notes[len(c.Notes)-1])
	}
	return strings.Join(parts, "; ")
}

// ratio is the median of ours over that of another way; NaN if there is none.
func (c *comparison) ratio(over way) float64 {
	return c.of(ours).quantile(.5) / c.of(over).quantile(.5)
}

// ratios are those that the table shows: ours over each other way.
func (c *comparison) ratios() string {
	var parts []string
	for _, one := range c.Cells {
		if r := c.ratio(one.Way); one.Way != ours && !math.IsNaN(r) && !math.IsInf(r, 0) {
			parts = append(parts, measure.Ratio.Format(r)+" of "+string(one.Way))
		}
	}
	return strings.Join(parts, "; ")
}

// verdict compares the medians with the aims.
func (c *comparison) verdict() string {
	var parts []string
	for _, a := range c.Aims {
		text := fmt.Sprintf("<= %s of %s: ", measure.Ratio.Format(a.AtMost), a.Over)
		switch r := c.ratio(a.Over); {
		case math.IsNaN(r):
			continue // it was not measured
		case r <= a.AtMost:
			text += "met"
		default:
			text += "**missed**"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}
