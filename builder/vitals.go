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

// sampler watches over the host while it is claimed. It belongs to the goroutine of
// run, and to Run's once that has ended.
type sampler struct {
	a    *Agent
	last *apiclient.Vitals // measured last; nil: never
	work work
	took []time.Duration // by each of the last looks, [lookWindow] at most
}

// run measures how the host is until ctx ends and hands it on, prints it each minute, and
// looks at its builds meanwhile. What was not taken yet is replaced; nil stands for
// a measurement that failed, for the check-in must be renewed all the same.
func (s *sampler) run(ctx context.Context, out chan *apiclient.Vitals) {
	tick := time.NewTicker(vitalsEvery)
	defer tick.Stop()
	look := time.NewTimer(0)
	defer look.Stop()
	if s.a.Builds == nil {
		look.Stop()
	}
	for n := 1; ; {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
			look.Reset(s.look(ctx))
			continue
		case <-tick.C:
		}
		aloud := n%sayEvery == 0
		n++
		if aloud && s.a.Builds != nil {
			look.Reset(s.look(ctx)) // so that they tell of all builds until now
		}
		v := s.a.measure(ctx)
		if ctx.Err() != nil {
			return
		}
		if v != nil {
			*v = s.work.in(*v)
			s.last = v
			if aloud {
				s.a.tell(*v)
			}
		}
		select {
		case <-out:
		default:
		}
		out <- v // room for one, and nobody else sends
	}
}

// farewell returns the last vitals, with what was seen of the builds since; nil if there
// never were any. It does not measure: whoever released the builder waits.
func (s *sampler) farewell() *apiclient.Vitals {
	if s.last == nil {
		return nil
	}
	v := *s.last
	if s.work.looked {
		v.Builds = s.work.builds
	}
	v = s.work.in(v)
	return &v
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
	return &v
}

// tell prints v for the person who reads the job's log.
func (a *Agent) tell(v apiclient.Vitals) {
	stalled := ""
	if s := v.MemoryStallPercent; s != nil && *s >= 1 {
		stalled = fmt.Sprintf(", waiting for memory %.0f%% of the time", *s)
	}
	a.say("cpu %3.0f%%, memory %s free, /nix %s free, %s running%s", v.CpuPercent, bytes(v.MemoryFreeBytes), bytes(v.StoreFreeBytes), builds(v.Builds), stalled)
}

const maxBuilds = 65536 // that the contract lets a builder tell

// presentable brings numbers into the ranges of the contract. A measurement that
// is a little off must not cost the builder its check-in.
func presentable(v apiclient.Vitals) apiclient.Vitals {
	if !(v.CpuPercent >= 0) { // NaN too
		v.CpuPercent = 0
	}
	v.CpuPercent = math.Min(v.CpuPercent, 100)
	v.MemoryFreeBytes = min(max(v.MemoryFreeBytes, 0), 1<<50)
	v.StoreFreeBytes = min(max(v.StoreFreeBytes, 0), 1<<60)
	if total := v.StoreTotalBytes; total != nil {
		v.StoreTotalBytes = new(min(max(*total, 0), 1<<60))
	}
	v.MemoryStallPercent, v.IoStallPercent = share(v.MemoryStallPercent), share(v.IoStallPercent)
	v.Builds = min(max(v.Builds, 0), maxBuilds)
	return v
}

// share brings a number into the range of percents; what is none is not told.
func share(percent *float64) *float64 {
	if percent == nil || math.IsNaN(*percent) {
		return nil
	}
	return new(min(max(*percent, 0), 100))
}

func bytes(n int64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }

func builds(n int) string {
	if n == 1 {
		return "1 build"
	}
	return fmt.Sprintf("%d builds", n)
}
