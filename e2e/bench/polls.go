package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

const (
	pollsSize    = 10_000
	pollsRelease = 2.0   // seconds
	pollsMemory  = 200e6 // bytes
)

func pollsCrowd(size int) crowd {
	return crowd{cluster: "bench/polls/1/1", prefix: "nix-builder-bench", size: size}
}

// releasePolls opens a poll for each of 10,000 builders at one coordinator, which runs in
// a process of its own, looks at that process' memory, and stops the cluster.
func releasePolls(ctx context.Context, b *bench) (_ []*measure, err error) {
	// Both ends of every connection are files here, and in the server only its own.
	if err := raiseFiles(pollsSize + 1024); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(b.dir, "polls-")
	if err != nil {
		return nil, err
	}
	srv, err := startServer(ctx, dir, pollsSize, b.profile)
	if err != nil {
		return nil, err
	}
	defer srv.end()
	before, err := residentOf(srv.pid)
	if err != nil {
		return nil, err
	}

	builders, err := arrive(ctx, pollsCrowd(pollsSize), srv.base)
	if err != nil {
		return nil, err
	}
	told := make([]time.Time, len(builders))
	gone := make([]time.Time, len(builders))
	leaving, leave := errgroup.WithContext(ctx)
	for i, r := range builders {
		leaving.Go(func() error {
			defer r.close()
			if err := r.await(leave); err != nil {
				return fmt.Errorf("builder %d: %w", i, err)
			}
			told[i] = time.Now()
			if err := r.depart(leave); err != nil {
				return fmt.Errorf("builder %d: %w", i, err)
			}
			gone[i] = time.Now()
			return nil
		})
	}
	if err := waitingPolls(ctx, srv.base, len(builders)); err != nil {
		return nil, err
	}
	open, err := residentOf(srv.pid)
	if err != nil {
		return nil, err
	}
	heap, err := scrape(ctx, srv.base, "go_memstats_heap_alloc_bytes", "go_memstats_stack_inuse_bytes", "go_memstats_sys_bytes")
	if err != nil {
		return nil, err
	}
	b.logf("  heap %s, stacks %s, from the system %s", inBytes.format(heap[0]), inBytes.format(heap[1]), inBytes.format(heap[2]))
	if b.profile != "" {
		if err := srv.profile("polls"); err != nil {
			return nil, err
		}
	}

	api, err := apiclient.New(srv.base, nil)
	if err != nil {
		return nil, err
	}
	called := time.Now()
	rep, err := api.Stop(ctx, time.Minute)
	if err != nil {
		return nil, err
	}
	answered := time.Since(called)
	if err := leaving.Wait(); err != nil {
		return nil, err
	}
	if rep.Phase != apiclient.PhaseStopped {
		return nil, fmt.Errorf("after the stop the cluster is %s", rep.Phase)
	}
	peak, err := peakOf(srv.pid)
	if err != nil {
		return nil, err
	}
	n := float64(len(builders))
	toTold := newMeasure("10,000 polls: call of stop to teardown at the builder", inSeconds, many)
	toGone := newMeasure("10,000 polls: call of stop to departure acknowledged", inSeconds, many).below(pollsRelease)
	for i := range builders {
		toTold.took(told[i].Sub(called))
		toGone.took(gone[i].Sub(called))
	}
	return []*measure{
		toTold, toGone,
		newMeasure("10,000 polls: stop's own answer", inSeconds, runs).took(answered),
		newMeasure("10,000 polls: resident memory of the server while they wait", inBytes, runs).below(pollsMemory).add(float64(open)),
		newMeasure("10,000 polls: of it for each builder that waits", inBytes, runs).add(float64(open-before) / n),
		newMeasure("10,000 polls: highest resident memory of the server, the stop included", inBytes, runs).add(float64(peak)),
	}, nil
}

// arrive lets the whole crowd check in.
func arrive(ctx context.Context, of crowd, base string) ([]*rawBuilder, error) {
	builders := make([]*rawBuilder, of.size)
	arriving, ctx := errgroup.WithContext(ctx)
	arriving.SetLimit(1000)
	var there atomic.Int64
	for i := range builders {
		arriving.Go(func() (err error) {
			if builders[i], err = of.raw(i, base); err != nil {
				return err
			}
			if err = builders[i].checkIn(ctx); err != nil {
				return fmt.Errorf("builder %d: %w", i, err)
			}
			there.Add(1)
			return nil
		})
	}
	return builders, arriving.Wait()
}

// waitingPolls waits until the server says that so many polls are open.
func waitingPolls(ctx context.Context, base string, want int) error {
	for {
		open, err := scrape(ctx, base, `nix_builders_waiting_requests{for="teardown"}`)
		if err != nil {
			return err
		}
		if int(open[0]) == want {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%v of %d polls are open: %w", open[0], want, context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// scrape returns the server's metrics of these names, with their labels.
func scrape(ctx context.Context, base string, names ...string) ([]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	found := make(map[string]float64)
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if name, value, ok := strings.Cut(lines.Text(), " "); ok {
			found[name], _ = strconv.ParseFloat(value, 64) // comments are no numbers
		}
	}
	values := make([]float64, len(names))
	for i, name := range names {
		v, ok := found[name]
		if !ok {
			return nil, fmt.Errorf("%s/metrics (%s) has no %s", base, res.Status, name)
		}
		values[i] = v
	}
	return values, lines.Err()
}

// residentOf is the resident memory of a process in bytes.
func residentOf(pid int) (int64, error) { return memoryOf(pid, "status", "VmRSS") }

// peakOf is the highest that it was.
func peakOf(pid int) (int64, error) { return memoryOf(pid, "status", "VmHWM") }

func memoryOf(pid int, file, field string) (int64, error) {
	value, ok := procField(fmt.Sprintf("/proc/%d/%s", pid, file), field)
	if !ok {
		return 0, fmt.Errorf("process %d has no %s", pid, field)
	}
	return kibibytes(value), nil
}

// raiseFiles makes sure that this process and its children may open n files.
func raiseFiles(n uint64) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	if limit.Cur >= n {
		return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) // so that children inherit it
	}
	limit.Cur, limit.Max = n, max(limit.Max, n)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("%d files must be open at once: %w", n, err)
	}
	return nil
}
