package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/measure"
)

// A report is what one run of the program found out.
type report struct {
	Machine measure.Machine `json:"machine"`
	When    time.Time       `json:"when"`
	Took    float64         `json:"took_seconds"`
	Runs    int             `json:"runs"`
	Rows    []*comparison   `json:"rows"`
}

func (r *report) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "\t")
	return e.Encode(r)
}

// writeMarkdown writes the machine, and a table for each version of Nix.
func (r *report) writeMarkdown(w io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "Measured %s on %s, in %s. The median of %d runs, by turns, with the least and the most.\n",
		r.When.UTC().Format("2006-01-02 15:04 UTC"), r.Machine, time.Duration(r.Took*float64(time.Second)).Round(time.Second), r.Runs)
	var nix string
	for _, row := range r.Rows {
		if row.Nix != nix {
			nix = row.Nix
			r.heading(&b, nix)
		}
		fmt.Fprintf(&b, "| %s ", row.What)
		for _, w := range r.ways() {
			fmt.Fprintf(&b, "| %s ", row.of(w).text(row.Unit))
		}
		fmt.Fprintf(&b, "| %s | %s |\n", row.ratios(), row.verdict())
	}
	_, err := b.WriteTo(w)
	return err
}

func (r *report) heading(b *bytes.Buffer, nix string) {
	fmt.Fprintf(b, "\n### Nix %s\n\n| what ", nix)
	for _, w := range r.ways() {
		fmt.Fprintf(b, "| %s ", w)
	}
	b.WriteString("| ours over | aim |\n|---")
	for range r.ways() {
		b.WriteString("|---")
	}
	b.WriteString("|---|---|\n")
}

// ways are those that any row has, in their order.
func (r *report) ways() (ways []way) {
	for _, w := range allWays {
		if slices.ContainsFunc(r.Rows, func(row *comparison) bool {
			return slices.ContainsFunc(row.Cells, func(c *cell) bool { return c.Way == w })
		}) {
			ways = append(ways, w)
		}
	}
	return ways
}

// update puts the tables into the document, between their marks.
func (r *report) update(file string) error {
	var tables bytes.Buffer
	if err := r.writeMarkdown(&tables); err != nil {
		return err
	}
	return measure.Update(file, "go run ./e2e/benchnix -update", tables.Bytes())
}
