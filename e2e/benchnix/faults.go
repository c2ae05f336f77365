package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/measure"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

const (
	faultLease = 3 * time.Second  // the shortest that there is
	faultBound = 45 * time.Second // what takes longer hangs
)

const faultBuild = "12 derivations of 4 s on 12 slots, "

// crashed is a build whose connections end at the builder, whose host lives on.
func crashed(ctx context.Context, b *bed, t *table) error {
	row := t.row(faultBuild+"a builder's nix-daemons are killed amid them", measure.Seconds)
	return b.fault(ctx, row, func(h *testbed.Host, ctx context.Context) error {
		return h.Run(ctx, "pkill", "-KILL", "-f", "nix-daemon --stdio")
	})
}

// killed is a build whose builder is taken away, as its provider does it. Its tailscaled
// dies with all else, so nobody hears of the end of its connections.
func killed(ctx context.Context, b *bed, t *table) error {
	row := t.row(fmt.Sprintf(faultBuild+"a builder's host is killed amid them (lease %v)", faultLease), measure.Seconds)
	return b.fault(ctx, row, (*testbed.Host).Kill)
}

// silenced is a build whose builder is not heard of any more, while it goes on building.
func silenced(ctx context.Context, b *bed, t *table) error {
	row := t.row(fmt.Sprintf(faultBuild+"a builder's link is cut amid them (lease %v)", faultLease), measure.Seconds)
	return b.fault(ctx, row, (*testbed.Host).Cut)
}

// fault lets something happen to a builder amid a build, with a cluster for each build.
func (b *bed) fault(ctx context.Context, row *comparison, strike func(*testbed.Host, context.Context) error) error {
	victim := testbed.Builder(2)
	for range b.runs {
		for _, w := range b.picked(stock, ours) {
			err := b.withCluster(ctx, size{builders: 3, lease: faultLease}, func(c *cluster) error {
				r, err := c.start(ctx, w, wide(3*slots, "4", faultBound))
				if err != nil {
					return err
				}
				err = await(ctx, []*testbed.Host{c.Host(victim)}, func(n int) bool { return n > 0 })
				if err == nil {
					err = pause(ctx, time.Second)
				}
				if err == nil {
					err = strike(c.Host(victim), ctx)
				}
				done, e := r.wait(ctx)
				row.ended(w, done)
				if done.outcome() != "" {
					b.logf("    %s %s: %s", w, done.outcome(), complaint(done.said))
				}
				return errors.Join(err, e, c.lose(ctx, victim))
			})
			if err != nil {
				return fmt.Errorf("%s: %w", w, err)
			}
		}
	}
	return nil
}

// late is a builder that is ready when the build has long begun.
func late(ctx context.Context, b *bed, t *table) error {
	row := t.row("120 derivations of 1 s, a fourth builder is ready amid them: until its first build begins", measure.Seconds)
	whole := t.row("the whole build of them", measure.Seconds)
	newcomer := testbed.Builder(4)
	for range b.runs {
		for _, w := range b.picked(stock, ours) {
			err := b.withCluster(ctx, size{builders: 3, later: 1}, func(c *cluster) error {
				r, err := c.start(ctx, w, wide(120, "1", 3*time.Minute))
				if err != nil {
					return err
				}
				ready, err := c.join(ctx, w, newcomer)
				done, e := r.wait(ctx)
				if err := errors.Join(err, e); err != nil {
					return err
				}
				if done.outcome() != "" {
					return fmt.Errorf("a build %s:\n%.4000s", done.outcome(), done.said)
				}
				whole.ended(w, done)
				return c.firstBuild(ctx, w, done, newcomer, ready, row)
			})
			if err != nil {
				return fmt.Errorf("%s: %w", w, err)
			}
		}
	}
	return nil
}

// join starts one more builder and returns when it is ready. For stock, that is when
// somebody writes it into the machines file.
func (c *cluster) join(ctx context.Context, w way, host string) (ready time.Time, err error) {
	if err := c.startBuilder(ctx, host); err != nil {
		return ready, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		text, err := c.coordinator().ReadFile(ctx, machinesFile)
		if err != nil {
			return ready, err
		}
		if strings.Contains(string(text), c.NameOf(host)) {
			break
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return ready, fmt.Errorf("%s is not ready: %w", host, err)
		}
	}
	ready = time.Now()
	c.Builders = append(c.Builders, host)
	if w == ours {
		return ready, nil
	}
	if err := c.writeStock(ctx); err != nil {
		return ready, err
	}
	return time.Now(), nil
}

// firstBuild notes when the builder's first build began.
func (c *cluster) firstBuild(ctx context.Context, w way, done built, host string, ready time.Time, row *comparison) error {
	lines, err := c.lines(ctx, done)
	if err != nil {
		return err
	}
	var first time.Time
	for _, line := range lines {
		where, text, _ := strings.Cut(line, " ")
		if where != host {
			continue
		}
		stamp, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return fmt.Errorf("an output says %q: %w", line, err)
		}
		at, err := uptime(stamp)
		if err != nil {
			return err
		}
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	if first.IsZero() {
		row.instead(w, "unused")
		return nil
	}
	// The file may have been written a moment before it was read.
	row.took(w, max(0, first.Sub(ready)))
	return nil
}

// complaint is the first thing that Nix did not like.
func complaint(said string) string {
	for line := range strings.Lines(said) {
		if strings.Contains(line, "error:") {
			return fmt.Sprintf("%.200s", strings.TrimSpace(line))
		}
	}
	return "without an error"
}
