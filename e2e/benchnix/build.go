package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// An order is what is to be built.
type order struct {
	expression string            // of fleet/nix
	args       map[string]string // of the expression, numbers as they are
	within     time.Duration     // a build that takes longer is taken to hang
}

// A built is what became of an order.
type built struct {
	wall, cpu time.Duration // cpu is the coordinator's
	began     time.Time
	ended     time.Time
	hung      bool
	failed    bool
	said      string // what Nix has printed
	outputs   []string
}

// outcome is "" for a build that ended well.
func (r built) outcome() string {
	switch {
	case r.hung:
		return "hangs"
	case r.failed:
		return "fails"
	}
	return ""
}

// A running is a build on its way.
type running struct {
	c              *cluster
	cmd            *exec.Cmd
	cancel         context.CancelFunc
	stdout, stderr bytes.Buffer
	began          time.Time
	cpu            time.Duration // before it
	within         time.Duration
}

// start starts nix build as root on the coordinator's host. tag makes all derivations new.
func (c *cluster) start(ctx context.Context, w way, o order) (*running, error) {
	argv := []string{"nix", "build", "--max-jobs", "0", "--no-link", "--print-out-paths", "--print-build-logs",
		"--file", expressions + "/" + o.expression, "--argstr", "tag", c.tag()}
	for name, value := range o.args {
		kind := "--argstr"
		if _, err := strconv.Atoi(value); err == nil && name != "seconds" {
			kind = "--arg"
		}
		argv = append(argv, kind, name, value)
	}
	r := &running{c: c, within: o.within}
	ctx, r.cancel = context.WithTimeout(ctx, o.within)
	r.cmd = c.coordinator().Command(ctx, argv...)
	r.cmd.Env = append(r.cmd.Env, w.env()...)
	r.cmd.Stdout, r.cmd.Stderr = &r.stdout, &r.stderr
	c.bed.ledger.place(r.cmd)
	var err error
	if r.cpu, err = c.bed.ledger.cpu(); err == nil {
		r.began = time.Now()
		err = r.cmd.Start()
	}
	if err != nil {
		r.cancel()
		return nil, fmt.Errorf("build %s: %w", o.expression, err)
	}
	return r, nil
}

// tag is one that no derivation has had, on any lab.
func (c *cluster) tag() string {
	c.bed.tags++
	return fmt.Sprintf("%d-%d", time.Now().UnixNano(), c.bed.tags)
}

// wait returns what became of the build. An error is none of its: it could not be measured.
func (r *running) wait(ctx context.Context) (built, error) {
	defer r.cancel()
	err := r.cmd.Wait()
	b := built{began: r.began, ended: time.Now(), said: r.stderr.String(), outputs: strings.Fields(r.stdout.String())}
	b.wall = b.ended.Sub(b.began)
	if ctx.Err() != nil {
		return b, context.Cause(ctx)
	}
	exit := (*exec.ExitError)(nil)
	switch {
	case b.wall >= r.within:
		b.hung = true
	case errors.As(err, &exit):
		b.failed = true
	case err != nil:
		return b, err
	}
	if err := r.c.bed.ledger.killBuild(); err != nil {
		return b, err
	}
	cpu, err := r.c.bed.ledger.cpu()
	b.cpu = cpu - r.cpu
	return b, err
}

// build builds, and expects it to end well: anything else is an error that has Nix's words.
func (c *cluster) build(ctx context.Context, w way, o order) (built, error) {
	r, err := c.start(ctx, w, o)
	if err != nil {
		return built{}, err
	}
	b, err := r.wait(ctx)
	if err == nil && b.outcome() != "" {
		err = fmt.Errorf("a build of %s, %s, %s after %v:\n%.4000s", o.expression, w, b.outcome(), b.wall, b.said)
	}
	return b, err
}

// where counts the outputs by the builder that made them, which is their first word.
func (c *cluster) where(ctx context.Context, b built) (map[string]int, error) {
	lines, err := c.lines(ctx, b)
	counts := map[string]int{}
	for _, line := range lines {
		host, _, _ := strings.Cut(line, " ")
		counts[host]++
	}
	return counts, err
}

// lines are the outputs, each of which is a file of one line.
func (c *cluster) lines(ctx context.Context, b built) ([]string, error) {
	var lines []string
	for some := range slices.Chunk(b.outputs, 500) {
		out, err := c.coordinator().Output(ctx, append([]string{"cat"}, some...)...)
		if err != nil {
			return nil, err
		}
		lines = append(lines, strings.Split(out, "\n")...)
	}
	return lines, nil
}

// share says how many builds each builder had, in their order.
func (c *cluster) share(counts map[string]int) string {
	var all []string
	for _, host := range c.Builders {
		all = append(all, strconv.Itoa(counts[host]))
	}
	return strings.Join(all, "/")
}

// discard deletes the outputs wherever they are, and whatever else of their tag there is:
// big ones would fill the disk.
func (c *cluster) discard(ctx context.Context, b built) error {
	if len(b.outputs) == 0 {
		return nil
	}
	f := strings.Split(b.outputs[0], "-")
	tag := strings.Join(f[len(f)-2:], "-")
	for _, h := range c.Lab.Hosts() {
		// A path that something still uses goes with the next ones.
		if err := h.Run(ctx, "sh", "-c", `nix-store --delete --quiet /nix/store/*-"$0" >/dev/null 2>&1; true`, tag); err != nil {
			return err
		}
	}
	return nil
}

// turns does something once in each way, again and again, and in another order each time.
func (c *cluster) turns(ctx context.Context, ways []way, do func(way) error) error {
	ways = c.bed.picked(ways...)
	for round := range c.bed.runs {
		for i := range ways {
			w := ways[(i+round)%len(ways)]
			end, err := c.begin(ctx, w)
			if err != nil {
				return fmt.Errorf("%s: %w", w, err)
			}
			err = do(w)
			if err = errors.Join(err, end(ctx)); err != nil {
				return fmt.Errorf("%s: %w", w, err)
			}
		}
	}
	return nil
}

// number reads what a file of the host says.
func number(ctx context.Context, h *testbed.Host, file string) (float64, error) {
	text, err := h.ReadFile(ctx, file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(strings.TrimSpace(string(text)), 64)
}
