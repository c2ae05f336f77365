package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/measure"
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
// a process of its own, looks at that process' memory, and stops the cluster; again and
// again, each time with a new process.
func releasePolls(ctx context.Context, b *bench) ([]*measure.Row, error) {
	// Both ends of every connection are files here, and in the server only its own.
	if err := raiseFiles(pollsSize + 1024); err != nil {
		return nil, err
	}
	p := polls{
		told:   measure.New("10,000 polls: call of stop to teardown at the builder", measure.Seconds, measure.Many),
		gone:   measure.New("10,000 polls: call of stop to departure acknowledged", measure.Seconds, measure.Many),
		last:   measure.New("10,000 polls: call of stop to last departure acknowledged", measure.Seconds, measure.Runs).Below(pollsRelease),
		open:   measure.New("10,000 polls: resident memory of the server while they wait", measure.Bytes, measure.Runs).Below(pollsMemory),
		each:   measure.New("10,000 polls: of it for each builder that waits", measure.Bytes, measure.Runs),
		live:   measure.New("10,000 polls: heap and stacks in use while they wait, garbage included", measure.Bytes, measure.Runs),
		peaked: measure.New("10,000 polls: highest resident memory of the server, the stop included", measure.Bytes, measure.Runs),
	}
	for round := range b.rounds {
		if err := p.once(ctx, b); err != nil {
			return nil, fmt.Errorf("round %d: %w", round+1, err)
		}
	}
	return []*measure.Row{p.told, p.gone, p.last, p.open, p.each, p.live, p.peaked}, nil
}

// polls are the rows of releasePolls.
type polls struct{ told, gone, last, open, each, live, peaked *measure.Row }

// once adds one server's values to the rows.
func (p *polls) once(ctx context.Context, b *bench) (err error) {
	dir, err := os.MkdirTemp(b.dir, "polls-")
	if err != nil {
		return err
	}
	srv, err := startServer(ctx, dir, pollsSize, b.profile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, srv.end()) }()
	before, err := residentOf(srv.pid)
	if err != nil {
		return err
	}
	builders, err := arrive(ctx, pollsCrowd(pollsSize), srv.base)
	if err != nil {
		return err
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
		return err
	}
	if err := p.weigh(ctx, srv, before); err != nil {
		return err
	}
	if b.profile != "" {
		if err := srv.profile("polls"); err != nil {
			return err
		}
	}
	api, err := apiclient.New(srv.base, nil)
	if err != nil {
		return err
	}
	called := time.Now()
	rep, err := api.Stop(ctx, time.Minute)
	if err != nil {
		return err
	}
	if err := leaving.Wait(); err != nil {
		return err
	}
	if rep.Phase != apiclient.PhaseStopped {
		return fmt.Errorf("after the stop the cluster is %s", rep.Phase)
	}
	for i := range builders {
		p.told.Took(told[i].Sub(called))
		p.gone.Took(gone[i].Sub(called))
	}
	p.last.Took(latest(gone).Sub(called))
	peak, err := peakOf(srv.pid)
	p.peaked.Add(float64(peak))
	return err
}

// weigh adds what the server takes while all polls wait.
func (p *polls) weigh(ctx context.Context, srv *server, before int64) error {
	open, err := residentOf(srv.pid)
	if err != nil {
		return err
	}
	use, err := scrape(ctx, srv.base, "go_memstats_heap_alloc_bytes", "go_memstats_stack_inuse_bytes")
	if err != nil {
		return err
	}
	p.open.Add(float64(open))
	p.each.Add(float64(open-before) / pollsSize)
	p.live.Add(use[0] + use[1])
	return nil
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
	value, ok := measure.ProcField(fmt.Sprintf("/proc/%d/%s", pid, file), field)
	if !ok {
		return 0, fmt.Errorf("process %d has no %s", pid, field)
	}
	return measure.Kibibytes(value), nil
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
