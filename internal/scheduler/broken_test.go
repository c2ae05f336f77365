package scheduler_test

import (
	"bufio"
	"encoding/json"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
)

// dial connects as one that knows nothing of the protocol.
func (r *rig) dial() net.Conn {
	r.t.Helper()
	conn, err := r.ln.Dial(r.t.Context(), netip.MustParseAddr("100.64.0.1"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	return conn
}

// Whoever breaks the rules is cut off, and nobody else notices.
func TestHooksThatBreakTheRules(t *testing.T) {
	const hello = `{"op":"hello","version":1}` + "\n"
	const try = `{"op":"try","build":{"derivation":"d","system":"x86_64-linux"}}` + "\n"
	const queue = `{"op":"queue"}` + "\n"
	for name, say := range map[string]string{
		"garbage":              "GET / HTTP/1.1\r\n\r\n",
		"no hello":             try,
		"another version":      `{"op":"hello","version":2}` + "\n",
		"garbage after hello":  hello + "\x00\xff\n",
		"an unknown word":      hello + `{"op":"dance"}` + "\n",
		"two words in a line":  hello + `{"op":"try"}{"op":"try"}` + "\n",
		"a try without build":  hello + `{"op":"try"}` + "\n",
		"a build of no system": hello + `{"op":"try","build":{"derivation":"d"}}` + "\n",
		"an empty resume":      hello + `{"op":"resume"}` + "\n",
		"two tries":            hello + try + try,
		"a queue before a try": hello + queue,
		"two queues":           hello + try + queue + `{"op":"done","outcome":"built"}` + "\n" + queue,
		"done before a try":    hello + `{"op":"done","outcome":"built"}` + "\n",
		"built before it ran":  hello + try + `{"op":"done","outcome":"built"}` + "\n",
		"an unknown outcome":   hello + try + queue + `{"op":"done","outcome":"exploded"}` + "\n",
		"too long a line":      hello + `{"op":"` + strings.Repeat("x", 17<<20) + `"}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, scheduler.Config{})
				r.Set([]scheduler.Machine{machine("b1", 3)})
				good := r.building(build("a"), "b1")
				conn := r.dial()
				go conn.Write([]byte(say))
				for lines := bufio.NewScanner(conn); lines.Scan(); { // ends when it is cut off
				}
				r.wantRunning(map[string]int{"b1": 1})
				good.done(scheduler.OutcomeBuilt)
				r.wantRunning(map[string]int{"b1": 0})
			})
		})
	}
}

func TestASilentHookIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, scheduler.Config{})
		conn := r.dial()
		began := time.Now()
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("it was told something")
		}
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// A hook that does not read loses what it has, in bounded time, and the others wait for
// nothing meanwhile.
func TestAHookThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, scheduler.Config{})
		r.Set([]scheduler.Machine{machine("b1", 2)})
		conn := r.dial()
		lines, say := bufio.NewReader(conn), json.NewEncoder(conn)
		tell := func(m scheduler.Message) {
			if err := say.Encode(m); err != nil {
				t.Fatal(err)
			}
		}
		tell(scheduler.Message{Op: scheduler.OpHello, Version: scheduler.Version})
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		b := build("a")
		tell(scheduler.Message{Op: scheduler.OpTry, Build: &b}) // and the answer is not read
		r.wantRunning(map[string]int{"b1": 1})
		r.building(build("b"), "b1").done(scheduler.OutcomeBuilt)
		time.Sleep(10 * time.Second)
		r.wantRunning(map[string]int{"b1": 0})

		// Nor may it pile up answers until then.
		chatty := r.dial()
		lines, say = bufio.NewReader(chatty), json.NewEncoder(chatty)
		tell(scheduler.Message{Op: scheduler.OpHello, Version: scheduler.Version})
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		declined := armBuild("c")
		for range 1000 {
			if err := say.Encode(scheduler.Message{Op: scheduler.OpTry, Build: &declined}); err != nil {
				break
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v to be cut off", took)
		}
		if n := r.Stats().Answers[scheduler.OpDecline]; n > 20 {
			t.Errorf("%d answers to one that does not read", n)
		}
	})
}

// Whatever a hook says, it is cut off or goes its way, and nothing of it is left when it ends.
func FuzzHook(f *testing.F) {
	const try = `{"op":"try","build":{"derivation":"d","system":"x86_64-linux"}}` + "\n"
	for _, seed := range []string{
		try + `{"op":"queue","inputs":["a","b"]}` + "\n" + `{"op":"ask","machine":"b1"}` + "\n" + `{"op":"done","outcome":"moved"}` + "\n" + `{"op":"queue","avoid":["b1"],"tries":1}` + "\n",
		`{"op":"resume","machine":"b1","build":{"derivation":"d","system":"builtin","features":["big-parallel"]}}` + "\n" + `{"op":"queue"}` + "\n",
		`{"op":"resume","machine":"b9","build":{"derivation":"d","system":"x","features":["a","a"]}}` + "\n",
		"null\n[]\n{}\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, say string) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, scheduler.Config{})
			r.Set([]scheduler.Machine{machine("b1", 2)})
			conn := r.dial()
			go func() {
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					if !json.Valid(lines.Bytes()) {
						t.Errorf("said %q", lines.Bytes())
					}
				}
			}()
			conn.Write([]byte(`{"op":"hello","version":1}` + "\n" + say)) // until it is cut off
			synctest.Wait()
			r.Set([]scheduler.Machine{machine("b2", 1)})
			synctest.Wait()
			conn.Close()
			r.wantRunning(map[string]int{"b2": 0})
		})
	})
}
