package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
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

// readReports reads what earlier runs have written as JSON, as one report. Of a benchmark
// that several have, the last one counts.
func readReports(files []string) (*report, error) {
	all := new(report)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		one := new(report)
		if err := json.Unmarshal(text, one); err != nil {
			return nil, fmt.Errorf("read the report %s: %w", file, err)
		}
		rows := slices.DeleteFunc(all.Rows, func(old *comparison) bool {
			return slices.ContainsFunc(one.Rows, old.sameBenchmark)
		})
		took := all.Took + one.Took
		*all = *one
		all.Rows, all.Took = append(rows, one.Rows...), took
	}
	all.sort()
	return all, nil
}

// sameBenchmark reports whether both are rows of the same benchmark on the same suite.
func (c *comparison) sameBenchmark(other *comparison) bool {
	return c.Suite == other.Suite && c.Benchmark == other.Benchmark
}

// sort puts the rows in the order in which one run would have them.
func (r *report) sort() {
	place := map[string]int{}
	for i, b := range benchmarks() {
		place[b.name] = i
	}
	slices.SortStableFunc(r.Rows, func(a, b *comparison) int {
		return cmp.Or(slices.Index(suites, a.Suite)-slices.Index(suites, b.Suite), place[a.Benchmark]-place[b.Benchmark])
	})
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
