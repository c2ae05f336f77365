package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/measure"
)

// A report is what one run of the program found out.
type report struct {
	Machine measure.Machine `json:"machine"`
	When    time.Time       `json:"when"`
	Took    float64         `json:"took_seconds"`
	Rows    []row           `json:"rows"`
}

// A row is a measure with the command that measures it again.
type row struct {
	Benchmark string `json:"benchmark"`
	Command   string `json:"command"`
	*measure.Row
}

func (r *report) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "\t")
	return e.Encode(r)
}

// writeTable writes the machine and the table, as Markdown.
func (r *report) writeTable(w io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "Measured %s on %s, in %s.\n\n", r.When.UTC().Format("2006-01-02 15:04 UTC"), r.Machine,
		time.Duration(r.Took*float64(time.Second)).Round(time.Second))
	b.WriteString("| what | aim | result | | command |\n|---|---|---|---|---|\n")
	for _, m := range r.Rows {
		what := m.What
		if m.Note != "" {
			what += " (" + m.Note + ")"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | `%s` |\n", what, m.Aimed(), m.Result(), m.Verdict(), m.Command)
	}
	_, err := b.WriteTo(w)
	return err
}

// update puts the table into the document, between its marks.
func (r *report) update(file string) error {
	var table bytes.Buffer
	if err := r.writeTable(&table); err != nil {
		return err
	}
	return measure.Update(file, "go run ./e2e/bench -update", table.Bytes())
}
