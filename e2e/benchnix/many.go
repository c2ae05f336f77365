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
	trivial   = 100
	roundTrip = 30 * time.Millisecond
)

// manyTrivial is what a build costs beside the building.
func manyTrivial(ctx context.Context, b *bed, t *table) error {
	wall := t.row(fmt.Sprintf("%d trivial derivations, 3 builders", trivial), measure.Seconds)
	cpu := t.row("CPU of the coordinator for each of them", measure.Seconds).aiming(stock, 1)
	return b.withCluster(ctx, size{builders: 3}, func(c *cluster) error {
		return c.turns(ctx, []way{stock, stockShared, ours}, func(w way) error {
			r, err := c.spread(ctx, w, wide(trivial, "0", 3*time.Minute), wall)
			cpu.took(w, r.cpu/trivial)
			return err
		})
	})
}

// farBuilders is the same when all builders are far from the coordinator.
func farBuilders(ctx context.Context, b *bed, t *table) error {
	wall := t.row(fmt.Sprintf("%d trivial derivations, 3 builders, %v round trip", trivial, roundTrip), measure.Seconds)
	return b.withCluster(ctx, size{builders: 3}, func(c *cluster) error {
		if err := c.coordinator().Delay(ctx, roundTrip/2); err != nil {
			return err
		}
		err := c.turns(ctx, []way{stock, stockShared, ours}, func(w way) error {
			_, err := c.spread(ctx, w, wide(trivial, "0", 5*time.Minute), wall)
			return err
		})
		return errors.Join(err, c.coordinator().Delay(context.WithoutCancel(ctx), 0))
	})
}

// opening is the time until a builder's store answers, and Nix ends.
func opening(ctx context.Context, b *bed, t *table) error {
	wall := t.row("opening a builder's store (`nix store info`)", measure.Seconds).aiming(stock, 0.5)
	return b.withCluster(ctx, size{builders: 1}, func(c *cluster) error {
		lines, err := c.coordinator().Output(ctx, "cat", "/etc/nix/machines")
		if err != nil {
			return err
		}
		uris := map[way]string{stock: "ssh-ng://" + c.Builders[0]}
		for line := range strings.Lines(lines) {
			if uri, _, ok := strings.Cut(line, " "); ok && !strings.HasPrefix(line, "#") {
				uris[ours] = uri
			}
		}
		if uris[ours] == "" { // Nix would open its own
			return fmt.Errorf("the machines file has no builder:\n%s", lines)
		}
		return c.turns(ctx, []way{stock, ours}, func(w way) error {
			cmd := c.coordinator().Command(ctx, "nix", "store", "info", "--store", uris[w])
			cmd.Env = append(cmd.Env, w.env()...)
			began := time.Now()
			if _, err := testbed.Output(cmd); err != nil {
				return fmt.Errorf("%s: %w", w, err)
			}
			wall.took(w, time.Since(began))
			return nil
		})
	})
}

// leaves is how full the slots are kept.
func leaves(ctx context.Context, b *bed, t *table) error {
	wall := t.row("40 derivations of 1 s on 12 slots (at best 4 s)", measure.Seconds)
	return b.withCluster(ctx, size{builders: 3}, func(c *cluster) error {
		return c.turns(ctx, []way{stock, stockShared, ours}, func(w way) error {
			_, err := c.spread(ctx, w, wide(40, "1", 3*time.Minute), wall)
			return err
		})
	})
}

// thousands are big graphs.
func thousands(ctx context.Context, b *bed, t *table) error {
	flat := t.row("1,000 trivial derivations, none needs another", measure.Seconds)
	deep := t.row("1,000 trivial derivations in 10 chains of 100", measure.Seconds)
	return b.withCluster(ctx, size{builders: 3}, func(c *cluster) error {
		return c.turns(ctx, []way{stock, stockShared, ours}, func(w way) error {
			if _, err := c.spread(ctx, w, wide(1000, "0", 10*time.Minute), flat); err != nil {
				return err
			}
			r, err := c.build(ctx, w, order{"deep.nix", map[string]string{"chains": "10", "depth": "100"}, 15 * time.Minute})
			deep.ended(w, r)
			return err
		})
	})
}

func wide(n int, seconds string, within time.Duration) order {
	return order{"wide.nix", map[string]string{"n": fmt.Sprint(n), "seconds": seconds}, within}
}

// spread builds and notes how long it took and who built.
func (c *cluster) spread(ctx context.Context, w way, o order, row *comparison) (built, error) {
	r, err := c.build(ctx, w, o)
	if err != nil {
		return r, err
	}
	counts, err := c.where(ctx, r)
	row.ended(w, r)
	row.note(w, c.share(counts))
	return r, err
}

// waiting is what builds cost that wait for a slot.
func waiting(ctx context.Context, b *bed, t *table) error {
	const extra = 500
	memory := t.row(fmt.Sprintf("memory of the coordinator for %d derivations that wait for a slot", extra), measure.Bytes)
	processes := t.row("processes of the coordinator for them", measure.Number)
	return b.withCluster(ctx, size{builders: 3}, func(c *cluster) error {
		return c.turns(ctx, []way{stock, ours}, func(w way) error {
			_, before, err := b.ledger.memory(standing)
			if err != nil {
				return err
			}
			r, err := c.start(ctx, w, wide(3*slots+extra, "120", 4*time.Minute))
			if err != nil {
				return err
			}
			err = await(ctx, c.hosts(), func(n int) bool { return n >= 3*slots })
			if err == nil {
				err = b.ledger.waiting(ctx, w, memory, processes, before)
			}
			r.cancel()
			_, e := r.wait(ctx)
			if err := errors.Join(err, e); err != nil {
				return err
			}
			// Some builders build for a while when nobody waits for it any more.
			return await(ctx, c.hosts(), func(n int) bool { return n == 0 })
		})
	})
}

// waiting notes what a build has when it has all the processes that it will have, and
// what the host has more than before.
func (l *ledger) waiting(ctx context.Context, w way, memory, processes *comparison, before int64) error {
	n, bytes, err := l.settled(ctx)
	if err != nil {
		return err
	}
	_, after, err := l.memory(standing)
	memory.add(w, float64(bytes+after-before))
	processes.add(w, float64(n))
	return err
}

// settled waits until a build has as many processes as it will have, and returns them and
// their memory.
func (l *ledger) settled(ctx context.Context) (processes int, bytes int64, err error) {
	const still, atMost = 4 * time.Second, time.Minute
	most, since := 0, time.Now()
	for began := time.Now(); time.Since(began) < atMost; {
		if processes, bytes, err = l.memory(building); err != nil {
			return 0, 0, err
		}
		if processes > most {
			most, since = processes, time.Now()
		}
		if most > 1 && time.Since(since) > still {
			break
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return 0, 0, err
		}
	}
	return processes, bytes, nil
}

// await waits until so many derivations that sleep are being built on the hosts.
func await(ctx context.Context, hosts []*testbed.Host, enough func(sleeping int) bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("not within a minute"))
	defer cancel()
	for {
		sum := 0
		for _, h := range hosts {
			// They are in a process namespace of their own, below the host's.
			n, err := h.Output(ctx, "sh", "-c", "pgrep -x -c sleep || true")
			if ctx.Err() != nil {
				return fmt.Errorf("wait for builds to begin or to end: %d run: %w", sum, context.Cause(ctx))
			}
			if err != nil {
				return err
			}
			more, err := strconv.Atoi(n)
			if err != nil {
				return fmt.Errorf("%s: pgrep says %q", h.Name(), n)
			}
			sum += more
		}
		if enough(sum) {
			return nil
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("wait for builds to begin or to end: %d run: %w", sum, err)
		}
	}
}

// hosts are those of the builders.
func (c *cluster) hosts() (all []*testbed.Host) {
	for _, host := range c.Builders {
		all = append(all, c.Host(host))
	}
	return all
}

// pause waits for d, or returns why ctx ended.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
