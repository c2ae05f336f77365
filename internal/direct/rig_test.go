package direct_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/direct"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/proc"
)

// patience bounds what a test waits for.
const patience = 20 * time.Second

const tag = "tag:nix-ci-coordinator"

var loopback = netip.MustParseAddr("127.0.0.1")

// A rig is a server with real processes on a real socket.
type rig struct {
	*direct.Server
	t    testing.TB
	addr string
	end  func() // ends the server, and waits

	mu     sync.Mutex
	caller direct.Caller // whom the tailnet takes everybody for; mu guards it
}

// serve starts a server whose store is served by a shell script, and which the coordinator
// that calls has claimed.
func serve(t testing.TB, script string, change ...func(*direct.Config)) *rig {
	t.Helper()
	r := &rig{t: t, caller: direct.Caller{ID: "n1", Name: "coordinator", Addr: loopback, Tags: []string{tag}}}
	cfg := direct.Config{
		WhoIs: func(context.Context, string) (direct.Caller, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.caller.Name == "stranger" {
				return direct.Caller{}, errors.New("no such peer")
			}
			return r.caller, nil
		},
		CoordinatorTag: tag,
		Command:        []string{"/bin/sh", "-c", script},
		Env:            func() []string { return []string{"PATH=/usr/bin:/bin"} },
	}
	for _, c := range change {
		c(&cfg)
	}
	var err error
	if r.Server, err = direct.New(cfg); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	r.Claim(loopback)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx, l) }()
	r.end = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("serve: %v", err)
			}
		case <-time.After(patience):
			t.Error("the server does not end")
		}
	})
	t.Cleanup(r.end)
	return r
}

func (r *rig) as(c direct.Caller) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.caller = c
}

func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, addr)
}

// connect opens a session.
func (r *rig) connect() net.Conn {
	r.t.Helper()
	conn, err := direct.Connect(r.t.Context(), dial, r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	return conn
}

// idle waits until there are no sessions.
func (r *rig) idle() {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); r.Sessions() > 0; <-tick.C {
		if time.Now().After(deadline) {
			r.t.Fatalf("%d sessions do not end", r.Sessions())
		}
	}
}

// refused wants a session to be refused, for a reason.
func (r *rig) refused(why string) {
	r.t.Helper()
	conn, err := direct.Connect(r.t.Context(), dial, r.addr)
	if err == nil {
		conn.Close()
	}
	if !errors.Is(err, direct.ErrRefused) || !strings.Contains(err.Error(), why) {
		r.t.Errorf("a connection that should be refused, %s: %v", why, err)
	}
}

// processes reads a line of pids that a session's process prints.
func processes(t testing.TB, conn net.Conn) []proc.ID {
	t.Helper()
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var ids []proc.ID
	for _, word := range strings.Fields(line) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			t.Fatalf("%q is no line of pids", line)
		}
		id, err := proc.Of(pid)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// gone waits until processes are, and returns how long that took.
func gone(t testing.TB, ids []proc.ID) time.Duration {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, id := range ids {
		if !id.Await(ctx) {
			t.Errorf("process %d is still there", id.PID)
		}
	}
	return time.Since(began)
}

// ends wants a connection to be ended by the other side.
func ends(t testing.TB, conn net.Conn) (said string) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(conn)
	if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		t.Errorf("the connection does not end; until now it said %q", text)
	}
	return string(text)
}

// stubborn is a script whose processes end only when they are killed.
const stubborn = `trap "" HUP INT TERM; (trap "" HUP INT TERM; sleep 300 & echo $$ $!; exec sleep 301) & wait; exec sleep 302`

// raw sends bytes to an address, and returns what is answered before the end.
func raw(t testing.TB, addr, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprint(conn, text); err != nil {
		return ""
	}
	return ends(t, conn)
}
