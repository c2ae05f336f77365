package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/httpapi"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/rundir"
)

// A node of the tailnet that has the builders' tag, and one of the names that are expected,
// does its worst. Nobody else notices: builds go on, no builder is lost, whoever asks is
// answered and the stop takes no longer. What the server takes of its host is bounded.
func TestAbuse(t *testing.T) {
	lab := startLab(t, testbed.Config{Builders: 4, Programs: testbed.Programs("./e2e/flood")})
	r := newRig(t, lab, "abuse", 3)
	bad := testbed.Builder(4)
	r.Env["NIX_BUILDERS_LEASE"] = "10"
	r.Env["NIX_BUILDERS_MIN_BUILDERS"] = "3"
	builders := map[string]*fleet.Process{}
	for _, host := range r.Builders {
		builders[host] = r.builder(host)
	}
	good := r.Builders
	r.Builders = append(slices.Clone(good), bad)
	r.wantExit(r.coordinator(), 0)
	if err := lab.Host(bad).JoinTailnet(within(t, patience), testbed.Tailnet{Hostname: r.NameOf(bad), Tags: []string{httpapi.DefaultBuilderTag}}); err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{}
	for _, host := range good {
		ids[host] = r.awaitState(host, apiclient.BuilderStateReady).Id.String()
	}
	s := r.serverProcess()
	began := s.usage(t)
	t.Logf("before: %v", began)

	for _, kind := range []string{"same", "new", "offers", "polls", "reads", "lost",
		"conns", "heads", "bodies", "halves", "huge", "garbage", "all"} {
		t.Run(kind, func(t *testing.T) {
			before := s.usage(t)
			build := r.build("fan-in.nix", "--arg", "leaves", "3", "--argstr", "seconds", "1")
			flood := r.flood(bad, kind)
			most, slowest := s.watch(t, flood, caller{r.Host(good[0]), r.api()})
			after := s.usage(t)
			var did struct {
				Sent    int            `json:"sent"`
				Answers map[string]int `json:"answers"`
				Seconds float64        `json:"seconds"`
			}
			r.wantExit(flood, 0)
			if err := json.Unmarshal([]byte(flood.Output()), &did); err != nil || did.Sent == 0 {
				t.Fatalf("the flood said %q: %v", flood.Output(), err)
			}
			t.Logf("%d in %.1f s (%.0f/s): %v", did.Sent, did.Seconds, float64(did.Sent)/did.Seconds, did.Answers)
			t.Logf("at most %d MB and %d descriptors; %d events; %d bytes of log (%.0f/s), state %d -> %d bytes; slowest answer to another %v",
				most.resident>>20, most.files, after.event-before.event, after.log-before.log, float64(after.log-before.log)/did.Seconds,
				before.state, after.state, slowest)
			switch {
			case most.resident > mostMemory:
				t.Errorf("the server took %d MB, want %d at most", most.resident>>20, mostMemory>>20)
			case most.files > mostFiles:
				t.Errorf("the server had %d descriptors, want %d at most", most.files, mostFiles)
			case float64(after.log-before.log) > mostLog*max(did.Seconds, 1)+burstOfLog:
				t.Errorf("the log grew by %d bytes in %.1f s, want %d a second at most", after.log-before.log, did.Seconds, mostLog)
			case after.state > mostState:
				t.Errorf("the state has %d bytes, want %d at most", after.state, mostState)
			case after.event-before.event > mostEvents:
				t.Errorf("%d events came of it, want %d at most", after.event-before.event, mostEvents)
			case slowest > slowestElse:
				t.Errorf("somebody else waited %v for an answer, want %v at most", slowest, slowestElse)
			}
			r.wantExit(build, 0)
			now := r.await("there", func(apiclient.Cluster) bool { return true })
			for _, host := range good {
				if b, _ := builderOf(now, r.NameOf(host)); b.State != "ready" || b.Id == nil || b.Id.String() != ids[host] {
					t.Errorf("%s has come to harm: %s", host, show(b))
				}
			}
		})
	}

	// Amid all of it.
	addr := r.must(bad, "tailscale", "ip", "-4")
	flood := r.flood(bad, "all", "-for", "8s")
	eventually(t, "a flood of connections", func() bool { return len(r.sockets(testbed.Coordinator, addr)) >= 100 })
	start := time.Now()
	var names []string
	for _, host := range good {
		names = append(names, r.NameOf(host))
	}
	printed := r.stop(names...)
	took := time.Since(start)
	t.Logf("a release of the others took %v", took)
	contains(t, "the release", printed, "Released 3 of 3 builders")
	for _, host := range good {
		r.exitsWithin(builders[host], 0, patience)
	}
	start = time.Now()
	code, printed := r.as(testbed.Runner, testbed.Coordinator, "nix-builders", "stop", "--wait", "1s")
	stop := time.Since(start) - time.Second
	t.Logf("a stop that waits a second for all took %v", stop+time.Second)
	// The node that floods is one of the cluster and does not leave, if it got through and
	// was heard in the last ten seconds.
	switch code {
	case 0:
		contains(t, "the stop", printed, r.NameOf(bad)+" was not there")
	case 1:
		contains(t, "the stop", printed, r.NameOf(bad)+" did NOT leave", "stopped all the same")
	default:
		t.Errorf("the stop ended with code %d:\n%s", code, printed)
	}
	if max(took, stop) > stopWithin {
		t.Errorf("amid the flood a release took %v and a stop %v more than it was to wait, want %v at most", took, stop, stopWithin)
	}
	r.exit(flood)
	after := s.usage(t)
	t.Logf("in the end: %v", after)
	if after.highest > mostMemory {
		t.Errorf("the server had %d MB at its peak, want %d at most", after.highest>>20, mostMemory>>20)
	}
}

// What a flood may cost. Measured were 37 MB, 202 descriptors, 27 kB of log a second, 1.2 s.
const (
	mostMemory  = 100 << 20       // bytes of the server, at its peak
	mostFiles   = 400             // descriptors: 128 connections of a node, 16 of others, and what serves them
	mostLog     = 30_000          // bytes a second
	burstOfLog  = 200_000         // bytes at once
	mostState   = 256 << 10       // bytes: all places that were taken over are remembered, up to 1024
	mostEvents  = 16 + 2*8        // of a flood: check-ins at once and then one a second
	stopWithin  = 2 * time.Second // beyond what a stop is to wait
	slowestElse = 5 * time.Second // an answer to somebody else, on a machine whose cores the flood has
)

// flood starts e2e/flood on a host.
func (r *rig) flood(host, kind string, flags ...string) *fleet.Process {
	r.t.Helper()
	argv := []string{"flood", "-at", strings.TrimSuffix(strings.TrimPrefix(r.api(), "http://"), "/v1"), "-cluster", r.Cluster(), "-name", r.NameOf(host)}
	argv = append(argv, flags...)
	if kind == "all" {
		argv = append(argv, "same", "new", "offers", "polls", "reads", "lost", "conns", "heads", "bodies", "halves", "huge", "garbage")
	} else {
		argv = append(argv, kind)
	}
	p, err := r.Start(r.t.Context(), host, testbed.Runner, argv...)
	if err != nil {
		r.t.Fatal(err)
	}
	r.started = append(r.started, p)
	return p
}

// serverProcess is the coordinator's server as its host sees it.
type serverProcess struct {
	rig *rig
	pid string
}

func (r *rig) serverProcess() serverProcess {
	r.t.Helper()
	pids := r.pids(testbed.Coordinator, "nix-builders", "serve")
	if len(pids) != 1 {
		r.t.Fatalf("%d servers run", len(pids))
	}
	return serverProcess{r, pids[0]}
}

// usage is what the server takes of its host.
type usage struct {
	resident, highest int64 // bytes of memory
	files             int64 // descriptors
	log, state        int64 // bytes on disk
	event             int64 // number of the last
}

func (u usage) String() string {
	return fmt.Sprintf("%d MB (highest %d MB), %d descriptors, log %d bytes, state %d bytes, event %d",
		u.resident>>20, u.highest>>20, u.files, u.log, u.state, u.event)
}

const usageScript = `
awk '/^VmRSS/ {print $2} /^VmHWM/ {print $2}' "/proc/$1/status" | sort -n
ls "/proc/$1/fd" | wc -l
stat -c %s "$2" "$3"
sed -n 's/.*"event":\([0-9]*\).*/\1/p' "$3" | head -n1`

func (s serverProcess) usage(t *testing.T) usage {
	t.Helper()
	d := rundir.At(fleet.StateDir, s.rig.Cluster(), rundir.Coordinator)
	text, err := s.rig.Host(testbed.Coordinator).Output(within(t, patience), "sh", "-euc", usageScript, "sh", s.pid, d.LogPath(), d.JournalPath())
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(text)
	var n [6]int64
	for i := range n {
		if len(f) != len(n) {
			t.Fatalf("the server's usage: %q", text)
		}
		if n[i], err = strconv.ParseInt(f[i], 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	return usage{n[0] << 10, n[1] << 10, n[2], n[3], n[4], n[5]}
}

// watch looks at the server and asks it as somebody else until the process has ended. It
// returns the most that the server took and how long its slowest answer took.
func (s serverProcess) watch(t *testing.T, until *fleet.Process, other caller) (most usage, slowest time.Duration) {
	t.Helper()
	var asking sync.WaitGroup
	asking.Go(func() {
		for {
			select {
			case <-until.Done():
				return
			default:
			}
			took, err := other.timed(t)
			if err != nil {
				t.Errorf("somebody else asked meanwhile: %v", err)
				return
			}
			slowest = max(slowest, took)
		}
	})
	for {
		now := s.usage(t)
		most.resident = max(most.resident, now.resident)
		most.files = max(most.files, now.files)
		select {
		case <-until.Done():
			asking.Wait()
			return most, slowest
		case <-time.After(100 * time.Millisecond): // a look is a process, which takes of what is measured
		}
	}
}

// timed reads the cluster once and returns how long that took, by curl's own clock.
func (c caller) timed(t *testing.T) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := testbed.Output(c.host.CommandAs(ctx, testbed.Runner, "curl", "-sS", "--fail", "--max-time", "20", "-o", "/dev/null",
		"-w", "%{time_total}", c.base+"/cluster"))
	if err != nil {
		return 0, err
	}
	s, err := strconv.ParseFloat(out, 64)
	return time.Duration(s * float64(time.Second)), err
}
