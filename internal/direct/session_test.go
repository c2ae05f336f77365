package direct_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/direct"
)

// random gives bytes in which nothing repeats.
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// exchange sends bytes through a session whose process echoes them.
func exchange(conn net.Conn, sent []byte) error {
	var g errgroup.Group
	g.Go(func() error {
		if _, err := conn.Write(sent); err != nil {
			return err
		}
		return conn.(*net.TCPConn).CloseWrite()
	})
	got, err := io.ReadAll(conn)
	if err = errors.Join(err, g.Wait()); err != nil {
		return err
	}
	if !bytes.Equal(sent, got) {
		return fmt.Errorf("%d bytes came back of %d, or others", len(got), len(sent))
	}
	return nil
}

func TestBytesGoBothWays(t *testing.T) {
	r := serve(t, "exec cat")
	if err := exchange(r.connect(), random(8<<20)); err != nil {
		t.Error(err)
	}
	if err := exchange(r.connect(), nil); err != nil {
		t.Error(err)
	}
	r.end()
	if n := r.Sessions(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

func TestManyAtOnce(t *testing.T) {
	r := serve(t, "exec cat", func(c *direct.Config) { c.Spare = 3 })
	sent := random(100_000)
	var g errgroup.Group
	for range 60 {
		conn := r.connect()
		g.Go(func() error { return exchange(conn, sent) })
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestSessionsHaveABound(t *testing.T) {
	r := serve(t, "exec cat", func(c *direct.Config) { c.Limits.Sessions = 2 })
	first := r.connect()
	r.connect()
	r.refused("too many connections")
	if err := exchange(first, nil); err != nil {
		t.Fatal(err)
	}
	// It ends a moment after its connection.
	for deadline := time.Now().Add(patience); ; {
		conn, err := direct.Connect(t.Context(), dial, r.addr)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// What a process says at its end is heard, though the caller goes on to speak.
func TestLastWordsAreHeard(t *testing.T) {
	r := serve(t, "echo the disk is on fire")
	conn := r.connect()
	if _, err := conn.Write(random(100)); err != nil {
		t.Fatal(err)
	}
	if said := ends(t, conn); said != "the disk is on fire\n" {
		t.Errorf("it said %q", said)
	}
}

// When a caller has gone, nothing of what it began is left.
func TestNoOrphans(t *testing.T) {
	r := serve(t, stubborn, func(c *direct.Config) { c.Limits.Grace = 300 * time.Millisecond })
	for how, leave := range map[string]func(net.Conn) error{
		"closes":      net.Conn.Close,
		"half closes": func(c net.Conn) error { return c.(*net.TCPConn).CloseWrite() },
		"resets": func(c net.Conn) error {
			return errors.Join(c.(*net.TCPConn).SetLinger(0), c.Close())
		},
	} {
		conn := r.connect()
		ids := processes(t, conn)
		if err := leave(conn); err != nil {
			t.Fatal(err)
		}
		if took := gone(t, ids); took > 5*time.Second {
			t.Errorf("who %s: it took %v", how, took)
		}
	}
}

// A process that ends by itself is not waited for.
func TestProcessesEndInTheirOwnWay(t *testing.T) {
	mark := t.TempDir() + "/mark"
	r := serve(t, `echo $$; cat >/dev/null; echo in order >`+mark)
	conn := r.connect()
	ids := processes(t, conn)
	conn.Close()
	gone(t, ids)
	r.end()
	if text, err := os.ReadFile(mark); err != nil || string(text) != "in order\n" {
		t.Errorf("it could not end in order: %q, %v", text, err)
	}
}

func TestFence(t *testing.T) {
	r := serve(t, stubborn, func(c *direct.Config) { c.Spare = 1 })
	one, two := r.connect(), r.connect()
	ids := append(processes(t, one), processes(t, two)...)
	began := time.Now()
	r.Fence("its coordinator is silent")
	r.Fence("again")
	ends(t, one)
	ends(t, two)
	gone(t, ids)
	if took := time.Since(began); took > 5*time.Second { // on a machine that is busy
		t.Errorf("the end of all took %v, want 2 s", took)
	}
	r.refused("its coordinator is silent")
	c, err := direct.Condition(t.Context(), dial, r.addr, time.Now())
	if err != nil || !c.Leaving {
		t.Errorf("while it is fenced: %+v, %v", c, err)
	}
	before := time.Now()
	r.Claim(loopback)
	processes(t, r.connect())
	if c, err := direct.Condition(t.Context(), dial, r.addr, began.Add(-time.Second)); err != nil || !c.Leaving {
		t.Errorf("a build that the fence ended: %+v, %v", c, err)
	}
	if c, err := direct.Condition(t.Context(), dial, r.addr, before); err != nil || c.Leaving {
		t.Errorf("a build that began after the fence: %+v, %v", c, err)
	}
}

// Another coordinator ends what the first has begun.
func TestAnotherCoordinator(t *testing.T) {
	r := serve(t, stubborn)
	conn := r.connect()
	ids := processes(t, conn)
	r.Claim(loopback) // again: nothing happens
	r.Claim(netip.MustParseAddr("100.64.0.9"))
	ends(t, conn)
	gone(t, ids)
	r.refused("another coordinator")
}

func TestEnd(t *testing.T) {
	r := serve(t, stubborn, func(c *direct.Config) { c.Spare = 2 })
	conn := r.connect()
	ids := processes(t, conn)
	r.end()
	for _, id := range ids {
		if id.Alive() {
			t.Errorf("process %d outlives the server", id.PID)
		}
	}
	r.Claim(loopback) // too late
	if _, err := direct.Connect(t.Context(), dial, r.addr); err == nil {
		t.Error("it serves on")
	}
}

func TestProgramsThatDoNotWork(t *testing.T) {
	r := serve(t, "", func(c *direct.Config) { c.Command = []string{"/nonexistent/nix-daemon", "--stdio"} })
	if _, err := direct.Connect(t.Context(), dial, r.addr); err == nil || !strings.Contains(err.Error(), "/nonexistent/nix-daemon") {
		t.Errorf("a program that is not there: %v", err)
	}
	r = serve(t, "exit 1", func(c *direct.Config) { c.Spare = 2 })
	for range 5 {
		if said := ends(t, r.connect()); said != "" {
			t.Errorf("a program that ends at once said %q", said)
		}
	}
}

func TestEnvironment(t *testing.T) {
	n := 0
	r := serve(t, `echo "$NIX_CONFIG|$HOME"`, func(c *direct.Config) {
		c.Env = func() []string { n++; return []string{fmt.Sprintf("NIX_CONFIG=n = %d", n)} }
	})
	for _, want := range []string{"n = 1|\n", "n = 2|\n"} {
		if said := ends(t, r.connect()); said != want {
			t.Errorf("it said %q, want %q", said, want)
		}
	}
}

func TestWhoMayCall(t *testing.T) {
	r := serve(t, "exec cat")
	r.Handle("/nar/*", func(c direct.Caller) error {
		if c.Name != "b2" {
			return errors.New("it is for b2")
		}
		return nil
	}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "hello "+direct.CallerOf(r.Context()).Name)
	}))
	for _, c := range []struct {
		direct.Caller
		why string
	}{
		{direct.Caller{ID: "n2", Name: "b2", Addr: loopback, Tags: []string{"tag:nix-ci-builder"}}, "b2 has tag:nix-ci-builder"},
		{direct.Caller{ID: "n3", Name: "person", Addr: loopback}, "person has no tags"},
		{direct.Caller{ID: "n4", Name: "other", Addr: netip.MustParseAddr("100.64.0.4"), Tags: []string{tag}}, "another coordinator"},
		{direct.Caller{Name: "nobody", Addr: loopback, Tags: []string{tag}}, "does not know you"},
		{direct.Caller{Name: "stranger"}, "does not know you"},
	} {
		r.as(c.Caller)
		r.refused("403")
		r.refused(c.why)
		if _, err := direct.Condition(t.Context(), dial, r.addr, time.Now()); !errors.Is(err, direct.ErrRefused) {
			t.Errorf("%s is told the condition: %v", c.Name, err)
		}
		res, err := http.Get("http://" + r.addr + "/nar/x")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if want := c.Name == "b2"; (res.StatusCode == http.StatusOK) != want || want && string(body) != "hello b2" {
			t.Errorf("%s calls what is b2's: %s, %q", c.Name, res.Status, body)
		}
	}
	unclaimed, err := direct.New(direct.Config{
		WhoIs: func(context.Context, string) (direct.Caller, error) {
			return direct.Caller{ID: "n1", Addr: loopback, Tags: []string{tag}}, nil
		}, CoordinatorTag: tag, Command: []string{"/bin/cat"}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go unclaimed.Serve(t.Context(), l)
	r.addr = l.Addr().String()
	r.refused("no coordinator has claimed this builder yet")
}

func TestRequestsThatAreNone(t *testing.T) {
	r := serve(t, "exec cat")
	for name, tc := range map[string]struct{ sent, want string }{
		"no upgrade":      {"GET /store HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 426 "},
		"another upgrade": {"GET /store HTTP/1.1\r\nHost: x\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n\r\n", "HTTP/1.1 426 "},
		"another method":  {"POST /store HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 405 "},
		"another path":    {"GET /etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 404 "},
		"no age":          {"GET /conditions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 400 "},
		"negative age":    {"GET /conditions?age_milliseconds=-1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 400 "},
		"a daemon's":      {"\x6e\x69\x78\x63\x00\x00\x00\x00\x26\x01\x00\x00\r\n\r\n", "HTTP/1.1 400 "},
		"too long a head": {"GET /store HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 100_000) + "\r\n\r\n", "HTTP/1.1 431 "},
	} {
		if got := raw(t, r.addr, tc.sent); !strings.HasPrefix(got, tc.want) {
			t.Errorf("%s: it answered %.80q, want %q", name, got, tc.want)
		}
	}
	if err := exchange(r.connect(), random(1000)); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

// Who does not say what he wants is not waited for.
func TestRequestsThatDoNotEnd(t *testing.T) {
	r := serve(t, "exec cat", func(c *direct.Config) { c.Limits.Head = 100 * time.Millisecond })
	for _, sent := range []string{
		"", "GET /store HT", "GET /store HTTP/1.1\r\nHost: x\r\n",
		"GET /store HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n",
		"GET /conditions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5",
	} {
		raw(t, r.addr, sent)
	}
}

// Bytes that come with the request's head are the process'.
func TestSpeaksBeforeItIsAnswered(t *testing.T) {
	r := serve(t, "exec head -c 5")
	got := raw(t, r.addr, "GET /store HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: nix-daemon\r\n\r\nhello")
	if !strings.HasSuffix(got, "\r\n\r\nhello") {
		t.Errorf("it answered %q", got)
	}
}

func TestConnectionsHaveABound(t *testing.T) {
	r := serve(t, "exec cat", func(c *direct.Config) { c.Limits.Conns = 3 })
	session := r.connect() // is no connection any more
	var idle []net.Conn
	for range 4 {
		conn, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		idle = append(idle, conn)
	}
	ends(t, idle[3])
	idle[0].Close()
	if err := exchange(session, random(1000)); err != nil {
		t.Error(err)
	}
}
