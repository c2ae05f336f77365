package summary

import (
	"fmt"
	"strconv"
	"strings"
)

// columns are the heads of the table of builders.
func columns() []string {
	return []string{"Builder", "System", "Cores", "Joined", "Ready", "Left", "Did", "State"}
}

// cells are a builder's row, with what others said shown by show, the reason in no more
// than limit characters.
func (b *Builder) cells(show func(string, int) string, limit int) []string {
	systems, cores := "-", "-"
	if len(b.Systems) > 0 {
		systems = show(strings.Join(b.Systems, " "), maxName)
	}
	if b.Cores > 0 {
		cores = strconv.Itoa(b.Cores)
	}
	return []string{
		show(b.Name, maxName), systems, cores, clock(b.Joined), clock(b.Ready), clock(b.Left), b.did(), show(b.state(), limit),
	}
}

// rows are the builders' rows, each as line makes it, in no more than budget bytes. When
// that is too little, reasons become shorter; when it still is, the builders that went
// well are left out first. The last row then counts those left out.
func (r *Run) rows(budget int, show func(string, int) string, line func(cells []string) string) []string {
	for _, limit := range []int{240, 80, 40} {
		var all []string
		size := 0
		for i := range r.Builders {
			row := line(r.Builders[i].cells(show, limit))
			all = append(all, row)
			size += len(row)
		}
		if size <= budget {
			return all
		}
	}
	rest := make([]string, len(columns()))
	for i := range rest {
		rest[i] = "-"
	}
	rest[0] = fmt.Sprintf("and %d more", len(r.Builders))
	budget -= len(line(rest))
	var some []string
	for _, trouble := range []bool{true, false} {
		for i := range r.Builders {
			if r.Builders[i].Fate.trouble() != trouble {
				continue
			}
			row := line(r.Builders[i].cells(show, 40))
			if budget -= len(row); budget < 0 {
				rest[0] = fmt.Sprintf("and %d more", len(r.Builders)-len(some))
				return append(some, line(rest))
			}
			some = append(some, row)
		}
	}
	return some
}
