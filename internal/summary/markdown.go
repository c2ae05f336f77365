package summary

import (
	"fmt"
	"strings"
)

// MaxSize bounds what the package writes, in bytes. GitHub takes 1 MiB a step, and a
// person reads less.
const MaxSize = 64 << 10

// Markdown tells all of it.
func (r *Run) Markdown() string {
	var head, tail strings.Builder
	fmt.Fprintf(&head, "### Distributed Nix builds: %s\n\n", r.outcome())
	fmt.Fprintf(&head, "Cluster %s, %s. Times are UTC.", md(r.Cluster, 2*maxName), r.At.UTC().Format("2006-01-02"))
	if r.Failed != "" {
		fmt.Fprintf(&head, " The builders did not get ready: %s.", md(r.Failed, maxReason))
	}
	head.WriteString("\n\n")

	tail.WriteString(r.gantt())
	for _, line := range r.usage() {
		fmt.Fprintf(&tail, "\n%s\n", line)
	}
	writeList(&tail, "What went wrong, and what to do", r.remarks(md))

	if len(r.Builders) > 0 {
		writeRow(&head, columns())
		dashes := make([]string, len(columns()))
		for i := range dashes {
			dashes[i] = "---"
		}
		writeRow(&head, dashes)
		for _, row := range r.rows(MaxSize-head.Len()-tail.Len(), md, markdownRow) {
			head.WriteString(row)
		}
		head.WriteString("\n")
	}
	return head.String() + tail.String()
}

func writeRow(b *strings.Builder, cells []string) { b.WriteString(markdownRow(cells)) }

func markdownRow(cells []string) string { return "| " + strings.Join(cells, " | ") + " |\n" }

func writeList(b *strings.Builder, title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(b, "\n**%s**\n\n", title)
	for _, line := range lines {
		fmt.Fprintf(b, "- %s\n", line)
	}
}
