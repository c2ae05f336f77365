package e2e_test

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

var (
	seedFlag = flag.Uint64("seed", 4, "what TestChaos does, the same for the same seed")
	forFlag  = flag.Duration("for", 45*time.Second, "for how long TestChaos begins steps")
	fromFlag = flag.Uint64("from", 0, "the step that TestChaos begins with")
)

// slack is what anything may take on a machine that is busy with other things, beyond what
// the lease says.
const slack = 20 * time.Second

// Things go wrong, one or two at a time, while builds repeat. After each step everything
// has to be as if nothing had been.
func TestChaos(t *testing.T) {
	t.Parallel() // it mostly waits
	w := newWorld(t, *seedFlag, *fromFlag, *forFlag)
	for step, end := *fromFlag, time.Now().Add(*forFlag); time.Now().Before(end) && !t.Failed(); step++ {
		w.step(step)
	}
	w.end()
}

// A world is a cluster in which things go wrong.
type world struct {
	*rig
	seed    uint64
	lease   time.Duration
	lent    []*lent
	watch   *watch
	gate    sync.Mutex                    // who holds it keeps builds from beginning
	current atomic.Pointer[fleet.Process] // the build that runs
	cancel  func()                        // ends what runs all the time
	always  sync.WaitGroup                // what runs all the time
	stop0   map[string][]string           // the processes of each host before all
	event   int64                         // the last one that was looked at
	last    uint64                        // the last step

	mu       sync.Mutex
	spare    []string // names for builders that come late; guarded by mu
	released int      // builders, by name; guarded by mu
	done     []*trial // builds since the last step; guarded by mu
	stalls   []stall  // guarded by mu
	steps    []string // for the report; guarded by mu
	faults   []string // what is wrong; guarded by mu
}

// lent is a host that is lent as a builder. It belongs to whoever makes a fault of it.
type lent struct {
	host, name string
	p          *fleet.Process
}

// A stall is a time in which the server did not run.
type stall struct {
	from time.Time
	long time.Duration
}

func newWorld(t *testing.T, seed, from uint64, long time.Duration) *world {
	const builders = 3
	lab := startLab(t, testbed.Config{Builders: builders, Control: testbed.ControlConfig{EphemeralAfter: 5 * time.Second}})
	w := &world{seed: seed, lease: planLease(seed), stop0: map[string][]string{}}
	t.Cleanup(w.report) // after all that can fail
	w.rig = newRig(t, lab, "chaos", builders)
	w.Env["NIX_BUILDERS_LEASE"] = fmt.Sprint(int(w.lease.Seconds()))
	w.Env["NIX_BUILDERS_MAX_JOBS"] = "2"
	w.Env["NIX_BUILDERS_CORDON"] = "false" // all hosts share the memory of this machine
	for _, h := range lab.Hosts() {
		w.stop0[h.Name()] = programs(t, h)
	}
	var names []string
	for _, host := range w.Builders {
		w.lent = append(w.lent, &lent{host: host, name: w.NameOf(host)})
		names = append(names, w.NameOf(host))
	}
	// A step takes some seconds at least.
	for i := range planReleases(seed, from, from+uint64(long/(5*time.Second))+2, builders) {
		w.spare = append(w.spare, fmt.Sprintf("nix-builder-chaos-late-%d", i+1))
	}
	names = append(names, w.spare...)
	for _, b := range w.lent {
		if err := w.lend(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	w.wantExit(w.coordinator("NIX_BUILDERS_BUILDERS="+strings.Join(names, " "), fmt.Sprint("NIX_BUILDERS_MIN_BUILDERS=", builders)), 0)

	w.watch = newWatch(lab.Host(w.Coordinator), w.api(), names, w.wrong)
	ctx, cancel := context.WithCancel(t.Context())
	w.cancel = cancel
	w.always.Go(func() { w.watch.follow(ctx) })
	t.Cleanup(func() { cancel(); w.always.Wait() })
	w.settled("at first")
	w.always.Go(func() { w.watch.machines(ctx) })
	w.always.Go(func() { w.trials(ctx) })
	_, w.event = w.watch.after(0)
	return w
}

// wrong notes that the program is at fault.
func (w *world) wrong(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	w.faults = append(w.faults, text)
	w.t.Errorf("%s: %s", time.Now().UTC().Format("15:04:05.000"), text)
}

func (w *world) log(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.steps = append(w.steps, time.Now().UTC().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// report says how to make it go wrong again.
func (w *world) report() {
	w.mu.Lock()
	defer w.mu.Unlock()
	steps := strings.Join(w.steps, "\n")
	if !w.rig.t.Failed() {
		w.rig.t.Logf("seed %d, lease %v:\n%s", w.seed, w.lease, steps)
		return
	}
	w.rig.t.Logf("seed %d, lease %v; the same steps again: make mix SEED=%[1]d FOR=%[3]v FROM=%[4]d\n"+
		"the last one alone: make mix SEED=%[1]d FOR=1s FROM=%[5]d\n%[6]s", w.seed, w.lease, *forFlag, *fromFlag, w.last, steps)
}

// step makes things go wrong, and holds against it what came of it.
func (w *world) step(n uint64) {
	w.t.Helper()
	faults := planStep(w.seed, n, len(w.lent))
	w.log("step %d: %v", n, faults)
	w.last = n
	names := map[int]string{}
	for i, b := range w.lent {
		names[i+1] = b.name
	}
	var doing sync.WaitGroup
	for _, f := range faults {
		doing.Go(func() {
			if err := w.do(w.t.Context(), f); err != nil {
				w.wrong("step %d, %v: %v", n, f, err)
			}
		})
	}
	doing.Wait()
	if w.t.Failed() {
		return
	}
	w.settled(fmt.Sprintf("after step %d", n))
	w.gate.Lock() // waits for the build that runs
	defer w.gate.Unlock()
	if w.t.Failed() {
		return
	}
	w.onlyTheirs(faults, names)
	w.builds(faults)
	w.quiet(fmt.Sprintf("after step %d", n))
	w.log("step %d is over", n)
}

// onlyTheirs checks that nobody was lost but whom faults may lose.
func (w *world) onlyTheirs(faults []mishap, names map[int]string) {
	w.t.Helper()
	mayGo := map[string]bool{}
	for _, f := range faults {
		if f.host > 0 && (traitOf(f.kind).loses || f.kind == drainOne) {
			mayGo[names[f.host]] = true
		}
	}
	events, last := w.watch.after(w.event)
	w.event = last
	for _, e := range events {
		switch {
		case e.Builder == nil:
			w.wrong("the cluster moved: %s", show(e))
		case slices.Contains([]string{"lost", "departed", "rejected"}, *e.To) && !mayGo[*e.Builder]:
			w.wrong("%v lost somebody else: %s", faults, show(e))
		}
	}
}

// builds judges the builds since the last step: whatever went wrong, none may be lost.
func (w *world) builds(faults []mishap) {
	w.t.Helper()
	w.mu.Lock()
	done := w.done
	w.done = nil
	w.mu.Unlock()
	for _, b := range done {
		w.log("%v, with %v", b, b.sentTo())
		if b.code != 0 {
			w.wrong("%v was lost, with %v:\n%s", b, faults, b.printed)
		}
	}
	// Nix reads the machines file as we do.
	fresh := &trial{tag: fmt.Sprintf("%s-check-%d", w.Suffix, time.Now().UnixNano())}
	if err := w.build(w.t.Context(), fresh, "3", "0"); err != nil || fresh.code != 0 {
		w.wrong("a build when all is well: %v (%v):\n%s", fresh, err, fresh.printed)
	}
}

// end stops the cluster and looks for what is left.
func (w *world) end() {
	w.t.Helper()
	if w.t.Failed() {
		return
	}
	w.gate.Lock()
	defer w.gate.Unlock()
	w.builds(nil)
	printed := w.stop()
	all := len(w.lent) + w.released // they are told of as well
	contains(w.t, "the stop", printed, fmt.Sprintf("Released %d of %[1]d builders", all))
	w.cancel()
	for _, b := range w.lent {
		w.wantExit(b.p, 0)
	}
	w.leave()
	for _, h := range w.Lab.Hosts() {
		w.must(h.Name(), "nix-builders", "leave") // as each job's last step
		if left := w.must(h.Name(), "sh", "-c", "ls -d /run/nix-builders /usr/local/bin/stop-nix-builders /etc/nix/machines /root/.ssh/config 2>/dev/null || true"); left != "" {
			w.wrong("left on %s:\n%s", h.Name(), left)
		}
		if diff := cmp.Diff(w.stop0[h.Name()], programs(w.t, h)); diff != "" {
			w.wrong("processes of %s (-before +after):\n%s\n%s", h.Name(), diff, w.processes(h.Name()))
		}
		if links := w.must(h.Name(), "ls", "/sys/class/net"); strings.Contains(links, "tailscale") {
			w.wrong("the tailnet's device is left on %s: %s", h.Name(), links)
		}
	}
	eventually(w.t, "rid of every node", func() bool { return len(w.nodes()) == 0 })
}
