package measure

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
)

// A Row is one row of a table: the values that were measured of one thing.
type Row struct {
	What   string    `json:"what"`
	Unit   Unit      `json:"unit"`
	Spread Spread    `json:"spread"`
	Values []float64 `json:"values"` // in the unit, in the order they were measured
	Aim    *Aim      `json:"aim,omitempty"`
	Note   string    `json:"note,omitempty"`
}

// A Unit says what a value is and how it is written.
type Unit string

// The units that there are.
const (
	Seconds Unit = "seconds"
	Bytes   Unit = "bytes"
	Percent Unit = "percent" // of one CPU, or of all that there were
	Ratio   Unit = "ratio"
	Number  Unit = "number" // of things
)

// A Spread says which of many values the table shows.
type Spread string

// Spreads of few values and of many.
const (
	Runs Spread = "min / median / max" // of a few runs
	Many Spread = "p50 / p99 / max"    // of a crowd
)

// An Aim is a bound that all values should be below.
type Aim struct {
	Below float64 `json:"below"`
}

// New returns a row without values.
func New(what string, u Unit, s Spread) *Row {
	return &Row{What: what, Unit: u, Spread: s}
}

// Below gives the row its aim.
func (r *Row) Below(v float64) *Row {
	r.Aim = &Aim{Below: v}
	return r
}

// Noting adds what a reader must know of the row.
func (r *Row) Noting(format string, args ...any) *Row {
	r.Note = fmt.Sprintf(format, args...)
	return r
}

// Add adds values.
func (r *Row) Add(values ...float64) *Row {
	r.Values = append(r.Values, values...)
	return r
}

// Took adds times.
func (r *Row) Took(values ...time.Duration) *Row {
	for _, v := range values {
		r.Add(v.Seconds())
	}
	return r
}

// Quantile returns the value that at least the share q of all values is not above.
func (r *Row) Quantile(q float64) float64 {
	if len(r.Values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(r.Values))
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

// Result is the row's values as a table shows them.
func (r *Row) Result() string {
	show := func(q float64) string { return r.Unit.Format(r.Quantile(q)) }
	switch {
	case len(r.Values) == 0:
		return "nothing measured"
	case len(r.Values) == 1:
		return show(1)
	case r.Spread == Many:
		return fmt.Sprintf("%s / %s / %s (p50 / p99 / max of %d)", show(.5), show(.99), show(1), len(r.Values))
	}
	return fmt.Sprintf("%s / %s / %s (min / median / max of %d)", show(0), show(.5), show(1), len(r.Values))
}

// Verdict compares the worst value with the aim.
func (r *Row) Verdict() string {
	switch {
	case r.Aim == nil:
		return ""
	case r.Quantile(1) < r.Aim.Below:
		return "met"
	}
	return "**missed**"
}

// Aimed is the aim as a table shows it.
func (r *Row) Aimed() string {
	if r.Aim == nil {
		return ""
	}
	return "< " + r.Unit.Format(r.Aim.Below)
}

// Format writes a value of this unit with three digits.
func (u Unit) Format(v float64) string {
	switch u {
	case Seconds:
		if v < 1 {
			return significant(v*1e3) + " ms"
		}
		return significant(v) + " s"
	case Bytes:
		switch {
		case v < 1e3:
			return significant(v) + " B"
		case v < 1e6:
			return significant(v/1e3) + " kB"
		}
		return significant(v/1e6) + " MB"
	case Percent:
		return significant(v) + " %"
	case Ratio:
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
