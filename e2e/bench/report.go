package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/google/renameio/v2"
)

// A report is what one run of the program found out.
type report struct {
	Machine machine   `json:"machine"`
	When    time.Time `json:"when"`
	Took    float64   `json:"took_seconds"`
	Rows    []row     `json:"rows"`
}

// A row is a measure with the command that measures it again.
type row struct {
	Benchmark string `json:"benchmark"`
	Command   string `json:"command"`
	*measure
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
		fmt.Fprintf(&b, "| %s | %s | %s | %s | `%s` |\n", what, m.aimed(), m.result(), m.verdict(), m.Command)
	}
	_, err := b.WriteTo(w)
	return err
}

// Between these lines of a document stands the table of the last run.
const (
	beginMark = "<!-- begin: go run ./e2e/bench -update -->\n"
	endMark   = "<!-- end -->\n"
)

// update puts the table into the document, between its marks.
func (r *report) update(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("update the document: %w", err)
	}
	before, rest, ok := bytes.Cut(text, []byte(beginMark))
	_, after, ok2 := bytes.Cut(rest, []byte(endMark))
	if !ok || !ok2 {
		return fmt.Errorf("update the document: %s has no line %q with %q after it", file, beginMark, endMark)
	}
	var b bytes.Buffer
	b.Write(before)
	b.WriteString(beginMark)
	b.WriteByte('\n')
	if err := r.writeTable(&b); err != nil {
		return err
	}
	b.WriteByte('\n')
	b.WriteString(endMark)
	b.Write(after)
	if err := renameio.WriteFile(file, b.Bytes(), 0o644, renameio.WithExistingPermissions()); err != nil {
		return fmt.Errorf("update the document: %w", err)
	}
	return nil
}
