package testbed_test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

func TestDelay(t *testing.T) {
	const long = 25 * time.Millisecond
	cfg := bare(2)
	cfg.Delay = map[string]time.Duration{testbed.Builder(2): long}
	l := testbed.Start(t, cfg)
	co, b1, b2 := l.Host(testbed.Coordinator), l.Host(testbed.Builder(1)), l.Host(testbed.Builder(2))
	set := func(what string, h *testbed.Host, d time.Duration) {
		t.Helper()
		if err := h.Delay(bounded(t), d); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	// A busy machine adds to a round trip, and takes nothing off.
	within := func(what string, h *testbed.Host, least time.Duration) {
		t.Helper()
		if got := roundTrip(t, co, h); got < least || got > least+10*time.Millisecond {
			t.Errorf("%s: a round trip to %s takes %v, want %v", what, h.Name(), got, least)
		}
	}
	within("from the start", b2, 2*long)
	within("without", b1, 0)
	set("a first one", b1, long)
	within("with one", b1, 2*long)
	set("another one", b1, 2*long)
	within("with another one", b1, 4*long)

	// The coordinator's cable is on the way too.
	set("the coordinator's", co, long)
	within("with both", b1, 6*long)
	set("none for the coordinator", co, 0)

	silent := func(what string) {
		t.Helper()
		if _, err := co.Output(bounded(t), "busybox", "ping", "-c1", "-W1", b1.IP().String()); err == nil {
			t.Errorf("%s: builder-1 answers", what)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(b1.Cut(bounded(t)))
	silent("cut")
	set("none while cut", b1, 0)
	silent("cut, without a delay")
	set("one while cut", b1, long)
	silent("cut, with a delay")
	must(b1.Heal(bounded(t)))
	within("healed", b1, 2*long)

	must(b1.Kill(bounded(t)))
	if err := b1.Delay(bounded(t), long); err == nil || !strings.Contains(err.Error(), "builder-1") {
		t.Errorf("a delay for a dead host: %v", err)
	}
	must(b1.Restart(bounded(t)))
	within("restarted", b1, 2*long)
	set("none", b1, 0)
	set("none again", b1, 0)
	within("without one again", b1, 0)
}

// roundTrip is the shortest of a few.
func roundTrip(t *testing.T, from, to *testbed.Host) time.Duration {
	t.Helper()
	out := output(t, from, testbed.Root, "busybox", "ping", "-c5", "-W2", "-i0.05", to.IP().String())
	m := regexp.MustCompile(`min/avg/max = ([0-9.]+)/`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("ping says %q", out)
	}
	ms, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(ms * float64(time.Millisecond))
}

// A cable with a delay is no slow cable.
func TestDelayPassesMuch(t *testing.T) {
	l := testbed.Start(t, bare(1))
	co, b1 := l.Host(testbed.Coordinator), l.Host(testbed.Builder(1))
	if err := b1.Spawn(bounded(t), "sink", "node", "-e", `
		require("net").createServer({allowHalfOpen: true}, (c) => {
			let n = 0; c.on("data", (d) => n += d.length); c.on("end", () => c.end(String(n)))
		}).listen(7000)`); err != nil {
		t.Fatal(err)
	}
	eventually(t, "listening", func() bool {
		return strings.Contains(output(t, b1, testbed.Root, "ss", "-Hltn"), ":7000")
	})
	const blocks = 400 // of a MiB
	send := func() (megabits float64) {
		t.Helper()
		began := time.Now()
		got := output(t, co, testbed.Root, "node", "-e", fmt.Sprintf(`
			const c = require("net").connect(7000, "%s"), block = Buffer.alloc(1 << 20); let left = %d
			const send = () => { while (left-- > 0) if (!c.write(block)) return; c.end() }
			c.on("drain", send); c.on("data", (d) => console.log(String(d))); send()`, b1.IP(), blocks))
		if got != strconv.Itoa(blocks<<20) {
			t.Errorf("%s bytes came of %d", got, blocks<<20)
		}
		return 8 * (blocks << 20) / time.Since(began).Seconds() / 1e6
	}
	without := send()
	if err := b1.Delay(bounded(t), time.Millisecond); err != nil {
		t.Fatal(err)
	}
	with := send()
	t.Logf("%.0f Mbit/s without a delay, %.0f with 1 ms each way", without, with)
	if with < 500 { // on a machine with nothing else to do it is ten times that
		t.Errorf("%.0f Mbit/s with a delay", with)
	}
}
