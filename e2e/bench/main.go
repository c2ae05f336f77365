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
	"runtime/debug"
	"syscall"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/measure"
)

// A benchmark measures one thing, in as many rows as that takes.
type benchmark struct {
	name  string // what -only picks it by
	about string
	run   func(context.Context, *bench) ([]*measure.Row, error)
}

// benchmarks are all, in the order they run and stand in the table.
func benchmarks() []benchmark {
	return []benchmark{
		{"agents", "stop to last release, 256 agents in this process, 32 of them tailnet nodes", releaseAgents},
		{"polls", "stop to last release and memory, 10,000 open polls on one coordinator", releasePolls},
		{"cluster", "gathering and stopping 3 real hosts", clusterOfHosts},
		{"crowd", "gathering 32 builders' check-ins, with real store tests on 3 hosts", gatherCrowd},
		{"fleet", "256 builders with a tailnet node each at one real coordinator: gathering, waiting, stopping", manyBuilders},
		{"idle", "memory and CPU of builders that wait, on 3 real hosts", idleBuilder},
		{"peer", "the peer's way of stopping the same hosts, beside ours", peersWay},
	}
}

// A bench is what benchmarks share.
type bench struct {
	dir     string // for files, on a real disk; removed at the end
	profile string // directory for profiles; empty: none
	rounds  int    // how often to repeat what is repeated
	logf    func(format string, args ...any)
}

const usage = `Measures what the project promises and prints one Markdown table.

usage: go run ./e2e/bench [flags]

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
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	only := fs.String("only", "", "run the benchmarks whose name matches this `REGEX`")
	asJSON := fs.Bool("json", false, "print JSON with every value instead of the table")
	update := fs.String("update", "", "also put the table between the marks of `FILE`")
	profile := fs.String("profile", "", "write CPU and heap profiles of the servers into `DIR`")
	rounds := fs.Int("rounds", 10, "how often to repeat what is repeated")
	list := fs.Bool("list", false, "list the benchmarks")
	fs.Usage = func() {
		fmt.Fprint(stderr, usage)
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil {
		return err
	}
	pick, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	if *list {
		for _, b := range benchmarks() {
			fmt.Fprintf(stdout, "%-10s %s\n", b.name, b.about)
		}
		return nil
	}
	began := time.Now()
	// Not /tmp, which may be memory: saving the cluster's state has to cost what it costs.
	dir, err := os.MkdirTemp("/var/tmp", "nix-builders-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &bench{dir: dir, profile: *profile, rounds: max(1, *rounds), logf: func(format string, args ...any) {
		fmt.Fprintf(stderr, "%6.1fs "+format+"\n", append([]any{time.Since(began).Seconds()}, args...)...)
	}}
	r := report{Machine: measure.ThisMachine(), When: began}
	if err := r.measure(ctx, b, pick); err != nil {
		return err
	}
	r.Took = time.Since(r.When).Seconds()
	if *update != "" {
		if err := r.update(*update); err != nil {
			return err
		}
	}
	if *asJSON {
		return r.writeJSON(stdout)
	}
	return r.writeTable(stdout)
}

// measure runs the benchmarks that are picked.
func (r *report) measure(ctx context.Context, b *bench, pick *regexp.Regexp) error {
	for _, one := range benchmarks() {
		if !pick.MatchString(one.name) {
			continue
		}
		b.logf("%s: %s", one.name, one.about)
		rows, err := one.run(ctx, b)
		if err != nil {
			return fmt.Errorf("%s: %w", one.name, err)
		}
		for _, m := range rows {
			b.logf("  %s: %s", m.What, m.Result())
			r.Rows = append(r.Rows, row{one.name, fmt.Sprintf("go run ./e2e/bench -only '^%s$'", one.name), m})
		}
		debug.FreeOSMemory() // what this one used
	}
	if len(r.Rows) == 0 {
		return fmt.Errorf("no benchmark's name matches %q; -list shows them", pick)
	}
	return nil
}
