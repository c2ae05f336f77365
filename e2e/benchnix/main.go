package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"syscall"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/image"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/measure"
)

// A benchmark measures builds on one bed, in as many rows as that takes.
type benchmark struct {
	name  string // what -only picks it by
	about string
	run   func(context.Context, *bed, *table) error
}

// benchmarks are all, in the order they run and stand in the table.
func benchmarks() []benchmark {
	return []benchmark{
		{"trivial", "100 trivial derivations: time, CPU, who builds them", manyTrivial},
		{"far", "the same with builders 30 ms away", farBuilders},
		{"open", "a builder's store is opened", opening},
		{"leaves", "40 derivations of a second on 12 slots", leaves},
		{"crashed", "a builder's daemons die amid a build", crashed},
		{"killed", "a builder's host dies amid a build", killed},
		{"silenced", "a builder falls silent amid a build", silenced},
		{"late", "a builder joins amid a build", late},
		{"copy", "500 MB come back", copyBack},
		{"shared", "200 MB that three builders need", sharedInput},
		{"headline", "1 GB from four builders", headline},
		{"thousands", "1,000 derivations, wide and deep", thousands},
		{"waiting", "500 derivations wait", waiting},
	}
}

// A table takes in the rows of a benchmark.
type table struct {
	suite, nix, benchmark string
	rows                  []*comparison
}

// row begins a row.
func (t *table) row(what string, u measure.Unit) *comparison {
	c := &comparison{Suite: t.suite, Nix: t.nix, Benchmark: t.benchmark, What: what, Unit: u}
	t.rows = append(t.rows, c)
	return c
}

// suites are those of Debian whose versions of Nix are measured.
var suites = []string{image.Trixie, image.Sid}

const usage = `Measures builds on other machines: the same ones as Nix does them by itself and
as it does them with this project, by turns, and prints a Markdown table for each
version of Nix.

usage: go run ./e2e/benchnix [flags]

`

func main() {
	if status, played := playRole(os.Args[1:]); played {
		os.Exit(status)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "benchnix:", err)
		os.Exit(1)
	}
}

// options are what the program was told.
type options struct {
	pick   *regexp.Regexp // of benchmarks
	ways   *regexp.Regexp
	suites []string
	runs   int
	stderr io.Writer
}

// picked are those of the ways that are to be measured.
func (o options) picked(ways ...way) (list []way) {
	for _, w := range ways {
		if o.ways.MatchString(string(w)) {
			list = append(list, w)
		}
	}
	return list
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flag.NewFlagSet("benchnix", flag.ContinueOnError)
	fs.SetOutput(stderr)
	only := fs.String("only", "", "run the benchmarks whose name matches this `REGEX`")
	ways := fs.String("ways", "", "build only in the ways whose name matches this `REGEX`")
	suite := fs.String("suite", "both", "the Debian `SUITE` of the hosts, and so the version of Nix: trixie, sid or both")
	runs := fs.Int("runs", 5, "how often to build in each way")
	asJSON := fs.Bool("json", false, "print JSON with every value instead of the tables")
	earlier := fs.Bool("markdown", false, "measure nothing: print the tables of earlier runs, whose JSON the arguments name")
	update := fs.String("update", "", "also put the tables between the marks of `FILE`")
	list := fs.Bool("list", false, "list the benchmarks")
	fs.Usage = func() {
		fmt.Fprint(stderr, usage)
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil {
		return err
	}
	out := output{json: *asJSON, update: *update, stdout: stdout}
	if *earlier {
		r, err := readReports(fs.Args())
		if err != nil {
			return err
		}
		return out.write(r)
	}
	o := options{runs: max(1, *runs), stderr: stderr}
	switch {
	case slices.Contains(suites, *suite):
		o.suites = []string{*suite}
	case *suite == "both":
		o.suites = suites
	default:
		return fmt.Errorf("-suite %s: want trixie, sid or both", *suite)
	}
	var err error
	if o.pick, err = regexp.Compile(*only); err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	if o.ways, err = regexp.Compile(*ways); err != nil {
		return fmt.Errorf("-ways: %w", err)
	}
	if *list {
		for _, b := range benchmarks() {
			fmt.Fprintf(stdout, "%-10s %s\n", b.name, b.about)
		}
		return nil
	}
	r := report{Machine: measure.ThisMachine(), When: time.Now(), Runs: o.runs}
	failed := r.measure(ctx, o)
	r.Took = time.Since(r.When).Seconds()
	if len(r.Rows) == 0 {
		return failed
	}
	if failed != nil {
		out.update = "" // what was measured before something went wrong is shown, and no more
	}
	return errors.Join(failed, out.write(&r))
}

// An output is where a report goes.
type output struct {
	json   bool
	update string // a document; empty: none
	stdout io.Writer
}

func (o output) write(r *report) error {
	if o.update != "" {
		if err := r.update(o.update); err != nil {
			return err
		}
	}
	if o.json {
		return r.writeJSON(o.stdout)
	}
	return r.writeMarkdown(o.stdout)
}

// measure runs the benchmarks that are picked. One that can't be carried out is no reason
// to leave the others.
func (r *report) measure(ctx context.Context, o options) error {
	logf := func(format string, args ...any) {
		fmt.Fprintf(o.stderr, "%6.1fs "+format+"\n", append([]any{time.Since(r.When).Seconds()}, args...)...)
	}
	var problems []error
	for _, suite := range o.suites {
		logf("%s", suite)
		err := withBed(ctx, suite, o, logf, func(b *bed) error {
			for _, one := range benchmarks() {
				if ctx.Err() != nil || !o.pick.MatchString(one.name) {
					continue
				}
				logf("  %s: %s", one.name, one.about)
				t := &table{suite: suite, nix: b.nix, benchmark: one.name}
				if err := one.run(ctx, b, t); err != nil {
					logf("    %v", err)
					problems = append(problems, fmt.Errorf("%s, %s: %w", suite, one.name, err))
				}
				for _, row := range t.rows {
					logf("    %s", row.What)
					for _, c := range row.Cells {
						logf("      %-22s %s", c.Way, c.text(row.Unit))
					}
				}
				r.Rows = append(r.Rows, t.rows...)
			}
			return nil
		})
		problems = append(problems, err)
	}
	if err := errors.Join(append(problems, context.Cause(ctx))...); err != nil {
		return err
	}
	if len(r.Rows) == 0 {
		return fmt.Errorf("no benchmark's name matches %q; -list shows them", o.pick)
	}
	return nil
}
