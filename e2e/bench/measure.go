package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
)

// A measure is one row of the table: the values that were measured of one thing.
type measure struct {
	What   string    `json:"what"`
	Unit   unit      `json:"unit"`
	Spread spread    `json:"spread"`
	Values []float64 `json:"values"` // in the unit, in the order they were measured
	Aim    *aim      `json:"aim,omitempty"`
	Note   string    `json:"note,omitempty"`
}

// A unit says what a value is and how it is written.
type unit string

const (
	inSeconds unit = "seconds"
	inBytes   unit = "bytes"
	inPercent unit = "percent" // of one CPU, or of all that there were
	asRatio   unit = "ratio"
	inNumber  unit = "number" // of things
)

// A spread says which of many values the table shows.
type spread string

const (
	runs spread = "min / median / max" // of a few runs
	many spread = "p50 / p99 / max"    // of a crowd
)

// An aim is a bound that all values should be below.
type aim struct {
	Below float64 `json:"below"`
}

// newMeasure returns a row without values.
func newMeasure(what string, u unit, s spread) *measure {
	return &measure{What: what, Unit: u, Spread: s}
}

// below gives the row its aim.
func (m *measure) below(v float64) *measure {
	m.Aim = &aim{Below: v}
	return m
}

// note adds what a reader must know of the row.
func (m *measure) note(format string, args ...any) *measure {
	m.Note = fmt.Sprintf(format, args...)
	return m
}

func (m *measure) add(values ...float64) *measure {
	m.Values = append(m.Values, values...)
	return m
}

func (m *measure) took(values ...time.Duration) *measure {
	for _, v := range values {
		m.add(v.Seconds())
	}
	return m
}

// quantile returns the value that at least the share q of all values is not above.
func (m *measure) quantile(q float64) float64 {
	if len(m.Values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(m.Values))
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

// result is the row's values as the table shows them.
func (m *measure) result() string {
	show := func(q float64) string { return m.Unit.format(m.quantile(q)) }
	switch {
	case len(m.Values) == 0:
		return "nothing measured"
	case len(m.Values) == 1:
		return show(1)
	case m.Spread == many:
		return fmt.Sprintf("%s / %s / %s (p50 / p99 / max of %d)", show(.5), show(.99), show(1), len(m.Values))
	}
	return fmt.Sprintf("%s / %s / %s (min / median / max of %d)", show(0), show(.5), show(1), len(m.Values))
}

// verdict compares the worst value with the aim.
func (m *measure) verdict() string {
	switch {
	case m.Aim == nil:
		return ""
	case m.quantile(1) < m.Aim.Below:
		return "met"
	}
	return "**missed**"
}

// aimed is the aim as the table shows it.
func (m *measure) aimed() string {
	if m.Aim == nil {
		return ""
	}
	return "< " + m.Unit.format(m.Aim.Below)
}

func (u unit) format(v float64) string {
	switch u {
	case inSeconds:
		if v < 1 {
			return significant(v*1e3) + " ms"
		}
		return significant(v) + " s"
	case inBytes:
		switch {
		case v < 1e3:
			return significant(v) + " B"
		case v < 1e6:
			return significant(v/1e3) + " kB"
		}
		return significant(v/1e6) + " MB"
	case inPercent:
		return significant(v) + " %"
	case asRatio:
		return significant(v) + " x"
	}
	return significant(v)
}

// significant writes three digits, or the whole number if it has more.
func significant(v float64) string {
	digits := 0
	switch a := math.Abs(v); {
	case a >= 100 || a == 0 || math.IsNaN(a):
	case a >= 10:
		digits = 1
	case a >= .1:
		digits = 2
	default:
		digits = 4
	}
	return strconv.FormatFloat(v, 'f', digits, 64)
}
