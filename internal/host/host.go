// Package host measures the machine it runs on: what a builder offers, and how it fares.
package host

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"sync"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/mem"
)

// Cores counts the processors that this process may use.
func Cores() int { return runtime.NumCPU() }

// Memory gives the host's memory in bytes, and how much of it new work could have without
// swapping.
func Memory(ctx context.Context) (total, available uint64, err error) {
	m, err := mem.VirtualMemoryWithContext(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("measure memory: %w", err)
	}
	return m.Total, m.Available, nil
}

// Disk gives the bytes that can be written where path lies, and how many of them still
// can. What the file system keeps for itself is neither.
func Disk(ctx context.Context, path string) (total, free uint64, err error) {
	u, err := disk.UsageWithContext(ctx, path)
	if err != nil {
		return 0, 0, fmt.Errorf("measure the disk of %s: %w", path, err)
	}
	return u.Used + u.Free, u.Free, nil
}

// Stalls gives the share of the last 10 s, in percent, in which all that wanted to run
// waited for memory, and for the disk. Nil: the system does not tell.
func Stalls() (memory, io *float64, err error) {
	if memory, err = stall("memory"); err != nil {
		return nil, nil, err
	}
	io, err = stall("io")
	return memory, io, err
}

// A CPUMeter tells how busy the processors were between two readings. The zero value is
// ready; its first reading covers the time since boot. It is safe for concurrent use.
type CPUMeter struct {
	mu         sync.Mutex
	busy, idle float64 // seconds of all processors at the last reading; mu guards them
}

// Percent gives the share of processor time that was used since the last reading, 0 to 100.
func (m *CPUMeter) Percent(ctx context.Context) (float64, error) {
	times, err := cpu.TimesWithContext(ctx, false)
	if err != nil {
		return 0, fmt.Errorf("measure CPU: %w", err)
	}
	if len(times) == 0 {
		return 0, fmt.Errorf("measure CPU: the system tells no times")
	}
	t := times[0]
	// Guest time is part of user time, so it is not added. Stolen time is another
	// guest's use of our processors: neither idle nor ours.
	busy := t.User + t.Nice + t.System + t.Irq + t.Softirq
	idle := t.Idle + t.Iowait
	m.mu.Lock()
	defer m.mu.Unlock()
	used, unused := busy-m.busy, idle-m.idle
	m.busy, m.idle = busy, idle
	return share(used, unused), nil
}

// share gives used of used+unused in percent, also when the counters went backwards, as
// they do by a tick on some kernels.
func share(used, unused float64) float64 {
	used, unused = max(used, 0), max(unused, 0)
	if used+unused <= 0 || math.IsNaN(used+unused) {
		return 0
	}
	return 100 * used / (used + unused)
}
