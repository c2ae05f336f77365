package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/measure"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

const megabyte = 1 << 20 // as head(1) has it

// copyBack is one big output's way to the coordinator, beside the same bytes over plain
// TCP, which the tailnet has encrypted already.
func copyBack(ctx context.Context, b *bed, t *table) error {
	const megabytes = 500
	wall := t.row(fmt.Sprintf("%d MB output: from when it is made to the end of the build", megabytes), measure.Seconds)
	cpu := t.row("CPU of the coordinator for that build", measure.Seconds).aiming(stockAES, 1)
	return b.withCluster(ctx, size{builders: 3}, func(c *cluster) error {
		return c.turns(ctx, []way{link, stock, stockAES, ours}, func(w way) error {
			if w == link {
				took, used, err := c.throughput(ctx, c.Builders[0], megabytes*megabyte)
				wall.took(w, took)
				cpu.took(w, used)
				return err
			}
			r, err := c.build(ctx, w, payload(1, megabytes, 3*time.Minute))
			if err != nil {
				return err
			}
			stamp, err := number(ctx, c.coordinator(), r.outputs[0]+"/made")
			if err != nil {
				return err
			}
			made, err := uptime(stamp)
			if err != nil {
				return err
			}
			wall.took(w, r.ended.Sub(made))
			cpu.took(w, r.cpu)
			return c.discard(ctx, r)
		})
	})
}

// headline is what a cluster is for: much output, made and brought back from everywhere.
func headline(ctx context.Context, b *bed, t *table) error {
	wall := t.row("1 GB of output from 4 builders: 20 derivations of 50 MB", measure.Seconds).
		aiming(stock, 1/1.5).aiming(stockAES, 1/1.5)
	return b.withCluster(ctx, size{builders: 4}, func(c *cluster) error {
		return c.turns(ctx, []way{stock, stockAES, ours}, func(w way) error {
			r, err := c.build(ctx, w, payload(20, 50, 5*time.Minute))
			if err != nil {
				return err
			}
			wall.ended(w, r)
			return c.discard(ctx, r)
		})
	})
}

func payload(n, megabytes int, within time.Duration) order {
	return order{"payload.nix", map[string]string{"n": strconv.Itoa(n), "megabytes": strconv.Itoa(megabytes)}, within}
}

// sharedInput is one big input that all builders need.
func sharedInput(ctx context.Context, b *bed, t *table) error {
	const megabytes = 200
	sent := t.row(fmt.Sprintf("%d MB made by one builder and read by 12 derivations on 3: bytes that the coordinator sends", megabytes), measure.Bytes).
		aiming(stock, .05)
	wall := t.row("the whole build of it", measure.Seconds)
	return b.withCluster(ctx, size{builders: 3}, func(c *cluster) error {
		return c.turns(ctx, []way{stock, ours}, func(w way) error {
			before, err := transmitted(ctx, c.coordinator())
			if err != nil {
				return err
			}
			r, err := c.spread(ctx, w, order{"shared.nix", map[string]string{"megabytes": strconv.Itoa(megabytes)}, 3 * time.Minute}, wall)
			if err != nil {
				return err
			}
			after, err := transmitted(ctx, c.coordinator())
			if err != nil {
				return err
			}
			sent.add(w, after-before)
			return c.discard(ctx, r)
		})
	})
}

// transmitted is how many bytes the host has sent over the tailnet.
func transmitted(ctx context.Context, h *testbed.Host) (float64, error) {
	return number(ctx, h, "/sys/class/net/tailscale0/statistics/tx_bytes")
}
