package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// A link that dies resets nothing. What was open over it is gone within the lease, on
// either side, and what is open over other links stays.
func TestHalfOpen(t *testing.T) {
	t.Parallel() // it mostly waits
	const lease, slack = 6 * time.Second, 2 * time.Second
	lab := startLab(t, testbed.Config{Builders: 2})
	dead, alive := testbed.Builder(1), testbed.Builder(2)
	r := newRig(t, lab, "halfopen", 2)
	r.Env["NIX_BUILDERS_LEASE"] = fmt.Sprint(int(lease.Seconds()))
	builders := r.ready()
	var readers []*stream
	for _, host := range []string{dead, alive} {
		reader := caller{r.Host(host), r.api()}.listen(t, "--speed-limit", "1", "--speed-time", fmt.Sprint(int(lease.Seconds())))
		defer reader.close()
		if e, err := reader.next(); err != nil || e.kind != "snapshot" {
			t.Fatalf("the reader on %s got %v, %v", host, e, err)
		}
		readers = append(readers, reader)
	}

	// Over the dead link: of the builder and of the reader, on either side.
	addr := map[string]string{}
	for _, host := range []string{dead, alive} {
		addr[host] = r.must(host, "tailscale", "ip", "-4")
	}
	open := func(host string) []socket { return r.sockets(testbed.Coordinator, addr[host]) }
	for _, host := range []string{dead, alive} {
		if n := len(open(host)); n < 2 {
			t.Fatalf("the coordinator has %d connections with %s, want those of its builder and of the reader: %v", n, host, open(host))
		}
		if n := len(r.sockets(host, "")); n < 2 {
			t.Fatalf("%s has %d connections with the coordinator, want two", host, n)
		}
	}
	before := open(alive)

	cut := time.Now()
	if err := lab.Host(dead).Cut(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	if n := len(open(dead)); n < 2 { // the link is dead and nobody knows
		t.Fatalf("just after the cut, the coordinator has %d connections with %s", n, dead)
	}
	gone := func(what string, list func() []socket) {
		t.Helper()
		for left := list(); len(left) > 0; left = list() {
			if time.Since(cut) > lease+slack {
				t.Errorf("%v after the cut, %s: %v", time.Since(cut).Round(time.Second), what, left)
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Logf("%v after the cut: no more of %s", time.Since(cut).Round(100*time.Millisecond), what)
	}
	gone("the coordinator's connections with "+dead, func() []socket { return open(dead) })
	gone("the connections on "+dead, func() []socket {
		return slices.DeleteFunc(r.sockets(dead, ""), func(s socket) bool {
			// What tries to get through is no connection. When curl gives up is its user's
			// to say.
			return s.state == "SYN-SENT" || s.curl
		})
	})
	r.awaitState(dead, apiclient.BuilderStateLost)
	if _, err := readers[0].next(); err == nil {
		t.Error("the reader behind the cut heard something")
	}

	// Those who were heard have kept their connections.
	for _, s := range before {
		if !slices.Contains(open(alive), s) {
			t.Errorf("%s lost its connection %v; it has %v", alive, s, open(alive))
		}
	}
	r.stop()
	for _, host := range []string{dead, alive} {
		r.exitsWithin(builders[host], 0, patience) // the one was silent for two leases by now
	}
	if rest := readers[1].rest(t); len(rest) == 0 {
		t.Error("the reader that was not cut off did not hear of the loss and the stop")
	}
}

// A socket is a TCP connection as ss shows it.
type socket struct {
	state, local, remote string
	curl                 bool // it is curl's
}

// sockets are the connections of a host with the API, or with nobody but the peer if it
// names one.
func (r *rig) sockets(host, peer string) (all []socket) {
	r.t.Helper()
	const port = ":8378"
	for line := range strings.Lines(r.must(host, "ss", "-Htnp")) {
		f := strings.Fields(line) // STATE RECV-Q SEND-Q LOCAL REMOTE [PROCESS]
		if len(f) < 5 {
			r.t.Fatalf("ss on %s: %q", host, line)
		}
		s := socket{f[0], f[3], f[4], strings.Contains(line, `"curl"`)}
		if strings.HasSuffix(s.local, port) && strings.HasPrefix(s.remote, peer+":") || peer == "" && strings.HasSuffix(s.remote, port) {
			all = append(all, s)
		}
	}
	return all
}
