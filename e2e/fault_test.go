package e2e_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
)

// chaos adds the stories that take minutes, and the variants of others.
var chaos = flag.Bool("chaos", false, "run all stories about faults, also those that take minutes")

// A faultStory is one fault, what led to it and what came of it, on a lab of its own. Its fault
// fires when a state is seen, and it ends with [fault.end].
type faultStory struct {
	name     string // at most 20 characters
	builders int
	chaos    bool // only with -chaos
	env      []string
	store    map[string]int64 // size of the hosts' stores, if not as large as the disk
	tell     func(*fault)
}

// storiesAtOnce is how many stories run at a time: they mostly wait.
const storiesAtOnce = 6

// TestFaults is the matrix of faults: what a user sees when a part of the cluster dies, is
// cut off, or lies. All that is not about it goes on.
func TestFaults(t *testing.T) {
	// The long ones first, so that none is waited for alone.
	stories := slices.Concat(healedFaults(), coordinatorFaults(), daemonFaults(), nameFaults(), builderFaults(), endFaults())
	turn := make(chan struct{}, storiesAtOnce)
	var telling sync.WaitGroup
	for _, s := range stories {
		if s.chaos && !*chaos {
			continue
		}
		turn <- struct{}{}
		telling.Go(func() {
			defer func() { <-turn }()
			t.Run(s.name, func(t *testing.T) { s.run(t) })
		})
	}
	telling.Wait()
}

func (s faultStory) run(t *testing.T) {
	lab := startLab(t, testbed.Config{
		Builders: s.builders, StoreSize: s.store, Programs: testbed.Programs("./e2e/links"),
	})
	f := &fault{rig: newRig(t, lab, s.name, s.builders)}
	for k, v := range pairs(s.env) {
		f.Env[k] = v
	}
	f.pristine = f.files(testbed.Coordinator)
	began := time.Now()
	s.tell(f)
	t.Logf("told in %v", time.Since(began).Round(100*time.Millisecond))
}

// shortLease is that of stories in which a lease has to run out.
const (
	shortLease = 6 * time.Second
	leaseEnv   = "NIX_BUILDERS_LEASE=6"
	oneIsReady = "NIX_BUILDERS_MIN_BUILDERS=1"
)

// noticed bounds the time from a fault to what it does under the short lease: the lease
// itself, a grace, and what a busy machine takes.
const noticed = shortLease + 5*time.Second

// fault is a rig whose parts break.
type fault struct {
	*rig
	pristine map[string]string // the coordinator's files before all
	own      []string          // hosts whose tailscaled is the story's, not the program's
	events   *stream           // all of them; nil before [fault.watch]
}

// serve starts the builders and the coordinator and returns when its step has ended well.
// more is set for single builders, by host.
func (f *fault) serve(more map[string][]string) {
	f.t.Helper()
	for _, host := range f.Builders {
		f.builder(host, more[host]...)
	}
	f.exitsWithin(f.coordinator(), 0, patience)
	f.allReady()
	f.watch()
}

// allReady waits until all builders are.
func (f *fault) allReady() {
	f.t.Helper()
	for _, host := range f.Builders {
		f.awaitState(host, "ready")
	}
}

// watch begins to note the events.
func (f *fault) watch() {
	f.t.Helper()
	f.events = caller{f.Host(f.Coordinator), f.api()}.listen(f.t, "-H", "Last-Event-ID: 0")
}

// untilLost waits for the loss of a builder and returns it.
func (f *fault) untilLost(host string, since time.Time) apiclient.Builder {
	f.t.Helper()
	b := f.awaitState(host, "lost")
	if took := time.Since(since); took > noticed {
		f.t.Errorf("%s was lost after %v, want at most %v", host, took, noticed)
	} else {
		f.t.Logf("%s was lost after %v: %s", host, took.Round(100*time.Millisecond), b.Reason)
	}
	return b
}

// awaitPhase waits until the cluster is in this phase.
func (f *fault) awaitPhase(phase apiclient.Phase) {
	f.t.Helper()
	f.await(string(phase), func(now apiclient.Cluster) bool { return now.Phase == phase })
}

// do runs a part of the lab's own, such as cutting a cable.
func (f *fault) do(act func(context.Context) error) time.Time {
	f.t.Helper()
	if err := act(within(f.t, patience)); err != nil {
		f.t.Fatal(err)
	}
	return time.Now()
}

// sent is how many builds the coordinator has sent to a host's builder, and waits for.
func (f *fault) sent(host string) int {
	f.t.Helper()
	metric := fmt.Sprintf("nix_builders_builds_running{builder=%q} ", strings.ToLower(f.NameOf(host)))
	text := output(f.t, f.Host(f.Coordinator), testbed.Runner, "curl", "-fsS", "--max-time", "5", f.api()+"/metrics")
	_, rest, ok := strings.Cut(text, "\n"+metric)
	if !ok {
		return 0
	}
	value, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.Atoi(value)
	if err != nil {
		f.t.Fatalf("%s is %q", metric, value)
	}
	return n
}

// stallOn starts a build that does not end by itself on a host, and does anywhere else, and
// returns when it runs there. The host has to be the one that is preferred.
func (f *fault) stallOn(host string) *fleet.Process {
	f.t.Helper()
	p := f.build("stalls.nix", "--argstr", "host", host)
	f.started = append(f.started, p)
	f.runsOn(host)
	return p
}

// runsOn waits until one build runs on a host.
func (f *fault) runsOn(host string) {
	f.t.Helper()
	eventually(f.t, "a build on "+host, func() bool { return f.building(host) == 1 && f.sent(host) == 1 })
}

// movesWithin wants nix build to end well, though the victim of a fault had its build, and
// to have told a person where that went.
func (f *fault) movesWithin(p *fleet.Process, since time.Time, d time.Duration) {
	f.t.Helper()
	code, err := p.Wait(within(f.t, d-time.Since(since)))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Logf("nix build ended %v after the fault, with code %d", time.Since(since).Round(100*time.Millisecond), code)
	if code != 0 {
		f.t.Errorf("nix build ended with code %d:\n%s", code, p.Output())
	}
	f.says(p, "moves from "+strings.ToLower(f.NameOf(victim))+" to "+strings.ToLower(f.NameOf(survivor)))
	if strings.Contains(p.Output(), "\nerror:") {
		f.t.Errorf("a person is shown an error:\n%s", p.Output())
	}
}

// builds wants a build to succeed, with a part on each of these hosts and on no other.
func (f *fault) builds(hosts ...string) {
	f.t.Helper()
	p := f.build("fan-in.nix", "--arg", "leaves", fmt.Sprint(2*len(hosts)), "--argstr", "seconds", "0.5")
	if diff := cmp.Diff(slices.Sorted(slices.Values(hosts)), hostsOf(f.where(p))); diff != "" {
		f.t.Errorf("hosts that built (-want +got):\n%s", diff)
	}
}

// trueFiles wants the machines file to be one that Nix reads, and to name the builders that
// the API says are ready and nobody else.
func (f *fault) trueFiles() {
	f.t.Helper()
	var want, got []string
	eventually(f.t, "a machines file that says what the API says", func() bool {
		now := f.await("there", func(apiclient.Cluster) bool { return true })
		want, got = nil, f.machines()
		for _, b := range now.Builders {
			if b.State == "ready" && now.Phase != "stopping" && now.Phase != "stopped" {
				want = append(want, strings.ToLower(b.Name))
			}
		}
		slices.Sort(want)
		return slices.Equal(want, got)
	})
	if f.t.Failed() {
		f.t.Logf("machines: %v, ready: %v", got, want)
	}
}

// machines are the names in the machines file, each line of which has to be whole.
func (f *fault) machines() (names []string) {
	f.t.Helper()
	text := f.must(f.Coordinator, "sh", "-c", "cat /etc/nix/machines 2>/dev/null || true")
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields, want := strings.Fields(line), 8
		if strings.HasPrefix(fields[0], "ssh-ng://localhost?") {
			want = 7 // no host key
		}
		name := nix.LineName(line)
		if len(fields) != want || name == "" || !strings.Contains(fields[0], "?remote-program=/") {
			f.t.Fatalf("machines has a line that is none: %q", line)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// end is how every story ends. What is left builds, is released, and leaves nothing behind;
// remaining are the hosts whose builders are ready.
func (f *fault) end(remaining ...string) {
	f.t.Helper()
	f.trueFiles()
	if len(remaining) > 0 {
		f.builds(remaining...)
	}
	f.stop()
	for _, host := range remaining {
		f.exitsWithin(f.builders[host], 0, patience)
	}
	f.gone()
}

// gone wants nothing of the program on any host, once the coordinator has left.
func (f *fault) gone() {
	f.t.Helper()
	f.trueFiles()
	f.leave()
	if diff := cmp.Diff(f.pristine, f.files(f.Coordinator)); diff != "" {
		f.t.Errorf("files of the coordinator are not as they were (-before +after):\n%s", diff)
	}
	f.noOrphans()
}

// noOrphans wants no process of ours, of a hook, or of a build on any host that is alive.
func (f *fault) noOrphans() {
	f.t.Helper()
	for _, h := range f.Lab.Hosts() {
		if !h.Alive() {
			continue
		}
		programs := "nix-builders|ssh|nix __build-remote|nix-daemon --stdio"
		if !slices.Contains(f.own, h.Name()) {
			programs += "|tailscaled"
		}
		find := `ps -eo pid=,ppid=,user=,args= -ww | grep -E "^ *[0-9]+ +[0-9]+ +(nixbld|[^ ]+ +([^ ]*/)?(` + programs + `)( |$))" || true`
		var left string
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			left = f.must(h.Name(), "sh", "-c", find)
			if left == "" || time.Now().After(deadline) {
				break
			}
		}
		if left != "" {
			f.t.Errorf("left on %s:\n%s", h.Name(), left)
		}
	}
}

// nobodyWasLost wants no event of the cluster, which has stopped, to be a loss or a second
// arrival.
func (f *fault) nobodyWasLost() {
	f.t.Helper()
	joined := map[string]int{}
	for {
		came, err := f.events.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			f.t.Fatalf("the event stream broke: %v", err)
		}
		if came.kind == "snapshot" { // in place of what the server does not remember
			continue
		}
		e := decode[apiclient.Event](f.t, []byte(came.data))
		if e.Type == apiclient.BuilderLost {
			f.t.Errorf("a builder was dropped: %s", show(e))
		}
		if e.Type == apiclient.BuilderJoined && e.Builder != nil {
			joined[*e.Builder]++
		}
	}
	for name, n := range joined {
		if n != 1 {
			f.t.Errorf("%s joined %d times", name, n)
		}
	}
}
