package summary

import (
	"fmt"
	"strings"
	"text/tabwriter"
)

// Text tells all of it for a log.
func (r *Run) Text() string {
	var b, tail strings.Builder
	fmt.Fprintf(&b, "Distributed Nix builds: %s.\n", r.outcome())
	if r.Failed != "" {
		fmt.Fprintf(&b, "The builders did not get ready: %s.\n", plain(r.Failed, maxReason))
	}
	for _, line := range r.usage() {
		fmt.Fprintln(&tail, line)
	}
	for i, line := range r.remarks(plain) {
		if i == 0 {
			fmt.Fprintln(&tail, "What went wrong, and what to do:")
		}
		fmt.Fprintf(&tail, "- %s\n", line)
	}
	// Columns are filled up to the widest cell: how long that makes it shows afterwards.
	table := ""
	for budget := MaxSize; len(r.Builders) > 0 && budget > 0; budget /= 2 {
		var aligned strings.Builder
		t := tabwriter.NewWriter(&aligned, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, strings.ToUpper(strings.Join(columns(), "\t")))
		for _, row := range r.rows(budget, plain, textRow) {
			fmt.Fprint(t, row)
		}
		t.Flush()
		if table = "\n" + aligned.String() + "\n"; b.Len()+len(table)+tail.Len() <= MaxSize {
			break
		}
	}
	return b.String() + table + tail.String()
}

func textRow(cells []string) string { return strings.Join(cells, "\t") + "\n" }
