package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/tailnet"
)

// writeCluster shows a cluster as a table. Times are ages at now.
func writeCluster(w io.Writer, c apiclient.Cluster, now time.Time) {
	ready := 0
	for _, b := range c.Builders {
		if b.State == "ready" {
			ready++
		}
	}
	fmt.Fprintf(w, "%s is %s, %d of %d builders ready, for %s\n", printable(c.Id), c.Phase, ready, len(c.Builders), age(c.Since, now))
	if c.Reason != "" {
		fmt.Fprintf(w, "  %s\n", printable(c.Reason))
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "BUILDER\tSTATE\tFOR\tSYSTEMS\tCORES\tJOBS\tMEMORY\tDISK\tBUILDS\tCPU\tHEARD")
	for _, b := range c.Builders {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", printable(b.Name), b.State, age(b.Since, now), strings.Join(offerCells(b), "\t"))
	}
	t.Flush()
	writeRemarks(w, c.Builders)
}

// offerCells are the columns from SYSTEMS on, which only a builder that checked in has.
// Memory and disk are what is free, of what there is.
func offerCells(b apiclient.Builder) []string {
	systems, cores, jobs, memory, disk, builds, cpu, heard := "-", "-", "-", "-", "-", "-", "-", "-"
	if o := b.Offer; o != nil {
		systems, cores = printable(strings.Join(o.Systems, ",")), strconv.Itoa(o.Cores)
		memory, disk = size(o.MemoryBytes), size(o.StoreFreeBytes)
		if v := b.Vitals; v != nil {
			memory = size(v.MemoryFreeBytes) + " of " + memory
			disk = size(v.StoreFreeBytes)
		}
	}
	if b.MaxJobs != nil && *b.MaxJobs > 0 {
		jobs = strconv.Itoa(*b.MaxJobs)
	}
	if v := b.Vitals; v != nil {
		builds, cpu = strconv.Itoa(v.Builds), fmt.Sprintf("%.0f%%", v.CpuPercent)
	}
	if b.SilentSeconds != nil {
		heard = span(time.Duration(*b.SilentSeconds*float64(time.Second))) + " ago"
	}
	return []string{systems, cores, jobs, memory, disk, builds, cpu, heard}
}

// writeRemarks says why the builders that are not ready are not, and what the tailnet
// calls those whose name was taken there.
func writeRemarks(w io.Writer, builders []apiclient.Builder) {
	var remarks []string
	for _, b := range builders {
		if b.State != "ready" && b.Reason != "" {
			remarks = append(remarks, fmt.Sprintf("%s is %s: %s\n", printable(b.Name), b.State, printable(b.Reason)))
		}
		if b.NodeName != nil && *b.NodeName != "" && *b.NodeName != tailnet.SanitizeHostname(b.Name) {
			remarks = append(remarks, fmt.Sprintf("%s is %s on the tailnet: another node had its name\n", printable(b.Name), printable(*b.NodeName)))
		}
	}
	if len(remarks) > 0 {
		fmt.Fprintf(w, "\n%s", strings.Join(remarks, ""))
	}
}

// writeReleased is one line about a builder that was told to leave.
func writeReleased(w io.Writer, r apiclient.Released) {
	switch {
	case r.Left && r.AfterSeconds != nil:
		cut := ""
		if r.BuildsCut != nil {
			cut = fmt.Sprintf(" (builds cut off: %d)", *r.BuildsCut)
		}
		fmt.Fprintf(w, "  %s left after %s%s\n", printable(r.Name), span(time.Duration(*r.AfterSeconds*float64(time.Second))), cut)
	case r.Left:
		fmt.Fprintf(w, "  %s was not there (%s: %s)\n", printable(r.Name), r.State, printable(r.Reason))
	default:
		fmt.Fprintf(w, "  %s did NOT leave (%s: %s)\n", printable(r.Name), r.State, printable(r.Reason))
	}
}

func age(t, now time.Time) string { return span(max(now.Sub(t), 0)) }

// span writes a duration as precisely as a person cares.
func span(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	}
	return fmt.Sprintf("%.1f h", d.Hours())
}

// size writes bytes in GiB, the unit in which runners differ.
func size(n int64) string {
	gib := float64(n) / (1 << 30)
	if gib >= 10 {
		return fmt.Sprintf("%.0fG", gib)
	}
	return fmt.Sprintf("%.1fG", gib)
}

// printable keeps what another machine says on one line and harmless: no control
// characters reach the terminal, and nothing is a command to GitHub's runner, neither at
// the beginning of a line nor, in the older form, in the middle.
func printable(s string) string {
	return strings.ReplaceAll(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s), "##[", "## [")
}
