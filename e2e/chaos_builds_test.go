package e2e_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// A trial is one nix build of a run.
type trial struct {
	tag      string
	anywhere bool // it may build on the coordinator too
	began    time.Time
	took     time.Duration
	code     int
	printed  string
	pauses   []string // the output after which nothing came for a while
}

// sentTo are the builders that it sent something to, by name.
func (b *trial) sentTo() []string {
	var names []string
	for _, m := range sentTo.FindAllStringSubmatch(b.printed, -1) {
		names = append(names, m[1])
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// sentTo finds the builders that a person is told of, when a build begins there or moves.
var sentTo = regexp.MustCompile(`(?: on '| moves from \S+ to )(nix-builder-[a-z0-9.-]+)`)

func (b *trial) String() string {
	where := "--max-jobs 0"
	if b.anywhere {
		where = "anywhere"
	}
	return fmt.Sprintf("nix build %s (%s, %.1f s, code %d, pauses %v)", b.tag, where, b.took.Seconds(), b.code, b.pauses)
}

// trials builds again and again, until ctx ends, whenever nobody holds the gate.
func (w *world) trials(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		w.gate.Lock()
		if ctx.Err() == nil {
			b := &trial{tag: fmt.Sprintf("%s-%d", w.Suffix, n), anywhere: n%3 == 2}
			if err := w.build(ctx, b, "6", "2"); err != nil && ctx.Err() == nil {
				w.wrong("%v", err)
			}
			if ctx.Err() == nil {
				w.mu.Lock()
				w.done = append(w.done, b)
				w.mu.Unlock()
			}
		}
		w.gate.Unlock()
		// Who wants the gate gets it.
		_ = pause(ctx, 20*time.Millisecond)
	}
}

// build runs one build to its end. It is an error if it hangs.
func (w *world) build(ctx context.Context, b *trial, leaves, seconds string) error {
	start := w.Build
	if b.anywhere {
		start = w.BuildAnywhere
	}
	b.began = time.Now()
	p, err := start(ctx, testbed.Runner, "fan-in.nix", b.tag, "--arg", "leaves", leaves, "--argstr", "seconds", seconds)
	if err != nil {
		return err
	}
	w.current.Store(p)
	defer w.current.Store(nil)
	ended := make(chan struct{})
	var hang error
	var watching sync.WaitGroup
	watching.Go(func() { hang = w.awaitOutput(p, b, ended) })
	b.code, err = p.Wait(ctx)
	close(ended)
	watching.Wait()
	b.took, b.printed = time.Since(b.began), p.Output()
	if hang != nil {
		return hang
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("%v: %w", b, err)
	}
	return nil
}

// awaitOutput is an error if the build prints nothing for longer than it takes to find out
// that a builder is lost. Then the build is killed, so that the run can end.
func (w *world) awaitOutput(p *fleet.Process, b *trial, ended <-chan struct{}) error {
	length, heard, looked := 0, time.Now(), false
	for {
		select {
		case <-ended:
			return nil
		case <-time.After(100 * time.Millisecond):
		}
		if out := p.Output(); len(out) > length {
			if d := time.Since(heard); d > w.lease/2 {
				b.pauses = append(b.pauses, fmt.Sprintf("%.1f s after %s", d.Seconds(), lastLine(out[:length])))
			}
			length, heard = len(out), time.Now()
		}
		if quiet := time.Since(heard); quiet > w.lease+w.lease/3 && !looked {
			looked = true
			b.pauses = append(b.pauses, fmt.Sprintf("in a pause run:\n%s\n", w.building()))
		}
		// A lease, and the grace of a server that did not run itself; then one more builder
		// that does not answer.
		if quiet := time.Since(heard); quiet > w.lease+w.lease/3+w.stalledSince(heard)+connectTime {
			what := w.processes(w.Coordinator)
			_ = w.Host(w.Coordinator).Run(w.t.Context(), "pkill", "-KILL", "-x", "nix") // the run has failed anyway
			return fmt.Errorf("%v hangs for %v; on the coordinator run:\n%s\nIt printed:\n%s", b, quiet.Round(time.Second), what, p.Output())
		}
	}
}

// connectTime is what ssh gives a builder to answer, with which Nix's hooks wait.
const connectTime = 10 * time.Second

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// awaitBuilding waits a while for the build of the time to use a builder: a fault that
// meets nobody at work proves little.
func (w *world) awaitBuilding(ctx context.Context, name string) {
	for deadline := time.Now().Add(w.lease); time.Now().Before(deadline) && ctx.Err() == nil; {
		if p := w.current.Load(); p != nil && strings.Contains(p.Output(), " on '"+name+"'") {
			return
		}
		_ = pause(ctx, 20*time.Millisecond)
	}
}
