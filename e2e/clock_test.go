package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// clockFile moves the clocks of a host's programs that run under it.
const clockFile = "/run/clock"

// underClock is what runs a program by that clock.
var underClock = []string{"clock", clockFile}

// The clock that the next test relies on is wrong by what its file says, for a program in
// C, for one in Go and for what they start, and only the wall clock is.
func TestClock(t *testing.T) {
	lab := startLab(t, clockLab(t, 0))
	co := lab.Host(testbed.Coordinator)
	setClock(t, co, 0)
	cmd := co.Command(within(t, patience), append(underClock, "clock", "show")...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Cancel()
	lines, begin, last := bufio.NewScanner(out), time.Now(), int64(0)
	wrong := func() time.Duration { // by the next line of the Go program
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("no more lines: %v", lines.Err())
		}
		var wall, mono int64
		if _, err := fmt.Sscan(lines.Text(), &wall, &mono); err != nil {
			t.Fatal(err)
		}
		if mono < last || time.Duration(mono)*time.Millisecond > time.Since(begin) {
			t.Fatalf("%v after its start, by the monotonic clock %d ms have passed, and before it were %d", time.Since(begin), mono, last)
		}
		last = mono
		return time.Until(time.UnixMilli(wall))
	}
	for _, by := range []time.Duration{0, -time.Hour, time.Hour, -time.Hour, 0} {
		setClock(t, co, by)
		near := func(d time.Duration) bool { return (d - by).Abs() < 30*time.Second }
		eventually(t, fmt.Sprintf("a program in Go sees a clock that is wrong by %v", by), func() bool { return near(wrong()) })
		for _, argv := range [][]string{{"date", "+%s"}, {"sh", "-c", "exec date +%s"}, {"busybox", "date", "+%s"}} {
			text := output(t, co, testbed.Root, append(underClock, argv...)...)
			seconds, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			if d := time.Until(time.Unix(seconds, 0)); !near(d) {
				t.Errorf("%v sees a clock that is wrong by %v, want %v", argv, d, by)
			}
		}
	}
	text := output(t, co, testbed.Root, "date", "+%s")
	if seconds, err := strconv.ParseInt(text, 10, 64); err != nil || time.Until(time.Unix(seconds, 0)).Abs() > 30*time.Second {
		t.Errorf("without it, date sees %s, %v", text, err)
	}
	// An exit code comes through, and whoever answered goes with those who asked.
	if _, err := co.Output(within(t, patience), append(underClock, "sh", "-c", "exit 7")...); err == nil || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("a program that exits with 7: %v", err)
	}
	if err := cmd.Cancel(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out) // it was killed
	_ = cmd.Wait()
	eventually(t, "rid of the clock's processes", func() bool {
		all, err := co.Processes()
		return err == nil && !strings.Contains(fmt.Sprint(all), "clock")
	})
}

// The clocks of the coordinator and of a builder jump back and forth while they work.
// Nobody is lost by it, and whatever tells how long something took tells the truth.
func TestClockJumps(t *testing.T) {
	t.Parallel() // it mostly waits
	const lease = 6 * time.Second
	lab := startLab(t, clockLab(t, 2))
	r := newRig(t, lab, "clock", 2)
	moved, steady := testbed.Builder(1), testbed.Builder(2)
	co := lab.Host(testbed.Coordinator)
	r.Env["NIX_BUILDERS_LEASE"] = fmt.Sprint(int(lease.Seconds()))
	r.Under = map[string][]string{testbed.Coordinator: underClock, moved: underClock}
	for host := range r.Under {
		setClock(t, lab.Host(host), 0)
	}
	builders := r.ready()
	began := time.Now()
	events := caller{co, r.api()}.listen(t, "-H", "Last-Event-ID: 0")
	defer events.close()

	jump := func(coordinator, builder time.Duration) {
		t.Helper()
		setClock(t, co, coordinator)
		setClock(t, lab.Host(moved), builder)
	}
	// The fault bites: the server tells another time, and the builder asks for it too.
	jump(-time.Hour, time.Hour)
	headers := output(t, co, testbed.Runner, "curl", "-sSi", r.api()+"/cluster")
	_, date, _ := strings.Cut(headers, "\nDate: ")
	date, _, _ = strings.Cut(date, "\r\n")
	if told, err := time.Parse(time.RFC1123, date); err != nil || (time.Until(told)+time.Hour).Abs() > 30*time.Second {
		t.Fatalf("the server has no clock that is an hour slow: %v, %v", date, err)
	}
	for host, commands := range map[string][]string{testbed.Coordinator: {"serve"}, moved: {"builder"}, steady: nil} {
		for _, c := range commands {
			r.must(host, "grep", "-q", "^Seccomp:.*2", "/proc/"+r.pids(host, "nix-builders", c)[0]+"/status")
		}
	}

	jumps := [][2]time.Duration{{time.Hour, -time.Hour}, {0, 0}, {time.Hour, time.Hour}, {-time.Hour, -time.Hour}, {-time.Hour, time.Hour}}
	build := r.build("fan-in.nix", "--arg", "leaves", "12", "--argstr", "seconds", "2")
	for i, until := 0, time.Now().Add(2*lease+lease/2); time.Now().Before(until); i++ {
		jump(jumps[i%len(jumps)][0], jumps[i%len(jumps)][1])
		jumped := time.Now()
		for _, b := range r.now().Builders {
			if b.State != "ready" {
				t.Errorf("%s is %s: %s", b.Name, b.State, b.Reason)
			}
			if s := *b.SilentSeconds; s < 0 || s > lease.Seconds() {
				t.Errorf("%s was heard %v s ago", b.Name, s)
			}
		}
		r.saneStatus(time.Since(began))
		eventually(t, "everybody heard after the jump", func() bool {
			return !slices.ContainsFunc(r.now().Builders, func(b apiclient.Builder) bool {
				return b.SilentSeconds == nil || *b.SilentSeconds >= time.Since(jumped).Seconds()
			})
		})
	}
	r.wantExit(build, 0)
	if diff := cmp.Diff(r.Builders, hostsOf(r.where(build))); diff != "" {
		t.Errorf("hosts that built while the clocks jumped (-want +got):\n%s", diff)
	}

	jump(time.Hour, -time.Hour)
	base := r.api()
	stopping := time.Now()
	report := decode[apiclient.StopReport](t, caller{co, base}.get(t, "/stop-nix-builders?wait=20", "-X", "POST").ok(t, "application/json"))
	took := time.Since(stopping).Seconds()
	if report.TookSeconds < 0 || report.TookSeconds > took {
		t.Errorf("a stop of %.1f s says that it took %v s", took, report.TookSeconds)
	}
	for _, b := range report.Builders {
		if !b.Left || b.AfterSeconds == nil || *b.AfterSeconds < 0 || *b.AfterSeconds > took {
			t.Errorf("a stop of %.1f s says of %s: %s", took, b.Name, show(b))
		}
	}
	for _, p := range builders {
		r.wantExit(p, 0)
	}
	next := int64(1)
	for _, e := range events.rest(t) {
		if e.Number != next {
			t.Errorf("event %d comes after %d", e.Number, next-1)
		}
		next = e.Number + 1
		if e.To != nil && *e.To == "lost" {
			t.Errorf("somebody was lost: %s", show(e))
		}
	}
	now := decode[apiclient.Cluster](t, caller{co, base}.get(t, "/cluster").ok(t, "application/json"))
	for _, b := range now.Builders {
		if v := b.Vitals; v == nil || v.BusySeconds == nil || *v.BusySeconds < 0 || *v.BusySeconds > 12*time.Since(began).Seconds() {
			t.Errorf("what %s did: %s", b.Name, show(b.Vitals))
		}
	}
	jump(0, 0)
	r.leave()
}

// clockLab is a lab whose hosts have the clock that can be wrong.
func clockLab(t *testing.T, builders int) testbed.Config {
	if runtime.GOOS == "linux" && runtime.GOARCH != "amd64" {
		t.Skip("the clock that can be wrong is for amd64")
	}
	return testbed.Config{Builders: builders, Programs: testbed.Programs("./e2e/clock")}
}

// setClock says by how much the clock of a host is wrong.
func setClock(t *testing.T, h *testbed.Host, by time.Duration) {
	t.Helper()
	if err := h.WriteFile(within(t, patience), clockFile, []byte(by.String()+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// now is the cluster as it is.
func (r *rig) now() apiclient.Cluster {
	r.t.Helper()
	return decode[apiclient.Cluster](r.t, caller{r.Host(r.Coordinator), r.api()}.get(r.t, "/cluster").ok(r.t, "application/json"))
}

// saneStatus holds the ages in the table for a person against how long the cluster is
// there, which is what they can be at most.
func (r *rig) saneStatus(most time.Duration) {
	r.t.Helper()
	table := r.must(testbed.Coordinator, append(underClock, "nix-builders", "status")...)
	for line := range strings.Lines(table) {
		words := strings.Fields(line)
		for i, w := range words[:max(len(words)-1, 0)] {
			n, err := strconv.ParseFloat(w, 64)
			unit, ok := map[string]time.Duration{"ms": time.Millisecond, "s": time.Second, "min": time.Minute, "h": time.Hour}[words[i+1]]
			if err != nil || !ok {
				continue
			}
			if age := time.Duration(n * float64(unit)); age < 0 || age > most+10*time.Second {
				r.t.Errorf("%v after it began, status says %s %s:\n%s", most.Round(time.Second), w, words[i+1], table)
			}
		}
	}
}
