package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/kelseyhightower/envconfig"
)

const intro = `nix-builders makes one distributed Nix build cluster of the runners of a workflow run.

Usage: nix-builders COMMAND [ARGUMENTS]
       nix-builders COMMAND --help

`

// usage documents every command and every setting.
func (a *app) usage(w io.Writer) {
	fmt.Fprint(w, intro, "Commands:\n")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range commands() {
		fmt.Fprintf(t, "  %s\t%s\n", c.name, c.summary)
	}
	t.Flush()
	fmt.Fprint(w, "\nSettings come from the environment; one that is set but empty counts as unset.\n")
	for _, sec := range new(settings).sections() {
		fmt.Fprintf(w, "\n%s\n", sec.title)
		var lines strings.Builder
		// The template is constant and the writer can't fail.
		_ = envconfig.Usagef(prefix, sec.spec, &lines,
			"{{range .}}{{usage_key .}}\t{{usage_default .}}\t{{usage_description .}}\n{{end}}")
		for line := range strings.Lines(lines.String()) {
			key, rest, _ := strings.Cut(strings.TrimSpace(line), "\t")
			value, desc, _ := strings.Cut(rest, "\t")
			if value != "" {
				desc += " Default: " + value + "."
			}
			fmt.Fprintf(w, "  %s\n%s", key, wrap(desc, 78, "      "))
		}
	}
}

func (a *app) commandUsage(c command) {
	line := "nix-builders " + c.name
	if c.args != "" {
		line += " " + c.args
	}
	fmt.Fprintf(a.stdout, "Usage: %s\n\n%s\n\n%s\n\nnix-builders --help lists the settings.\n", line,
		wrap(strings.ToUpper(c.summary[:1])+c.summary[1:]+".", 78, ""), strings.TrimSpace(c.detail))
}

// wrap breaks text at width, each line behind indent and ended.
func wrap(text string, width int, indent string) string {
	var b strings.Builder
	line := indent
	for _, word := range strings.Fields(text) {
		if len(line)+1+len(word) > width && line != indent {
			b.WriteString(line + "\n")
			line = indent
		}
		if line != indent {
			line += " "
		}
		line += word
	}
	b.WriteString(line + "\n")
	return b.String()
}
