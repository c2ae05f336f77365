package builder

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// vitalsTime bounds one measurement.
const vitalsTime = 15 * time.Second

// sample measures how the host is each minute until ctx ends, prints it and hands
// it on. What was not taken yet is replaced; nil stands for a measurement that
// failed, for the check-in must be renewed all the same.
func (a *Agent) sample(ctx context.Context, out chan *apiclient.Vitals) {
	tick := time.NewTicker(vitalsEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		v := a.measure(ctx)
		if ctx.Err() != nil {
			return
		}
		select {
		case <-out:
		default:
		}
		out <- v // room for one, and nobody else sends
	}
}

func (a *Agent) measure(ctx context.Context) *apiclient.Vitals {
	ctx, cancel := context.WithTimeout(ctx, vitalsTime)
	defer cancel()
	v, err := a.Vitals(ctx)
	if err != nil {
		if ctx.Err() == nil {
			a.Log.Warn("measure this host", "error", err)
		}
		return nil
	}
	v = presentable(v)
	a.say("cpu %3.0f%%, memory %s free, /nix %s free, %s running", v.CpuPercent, bytes(v.MemoryFreeBytes), bytes(v.StoreFreeBytes), builds(v.Builds))
	return &v
}

// presentable brings numbers into the ranges of the contract. A measurement that
// is a little off must not cost the builder its check-in.
func presentable(v apiclient.Vitals) apiclient.Vitals {
	if !(v.CpuPercent >= 0) { // NaN too
		v.CpuPercent = 0
	}
	v.CpuPercent = math.Min(v.CpuPercent, 100)
	v.MemoryFreeBytes = min(max(v.MemoryFreeBytes, 0), 1<<50)
	v.StoreFreeBytes = min(max(v.StoreFreeBytes, 0), 1<<60)
	v.Builds = min(max(v.Builds, 0), 65536)
	return v
}

func bytes(n int64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }

func builds(n int) string {
	if n == 1 {
		return "1 build"
	}
	return fmt.Sprintf("%d builds", n)
}
