package direct_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/direct"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
)

// answering serves connections whose requests get an answer, whatever they ask.
func answering(t *testing.T, answer string, stay bool) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
				continue
			}
			_, _ = io.WriteString(conn, answer)
			if !stay {
				_ = conn.(*net.TCPConn).CloseWrite()
			}
		}
	}()
	return l.Addr().String()
}

func TestBuildersThatAreNone(t *testing.T) {
	for name, tc := range map[string]struct {
		answer string
		stay   bool
		want   string
	}{
		"silent":            {"", true, "no answer"},
		"ends":              {"", false, "it ended the connection"},
		"half an answer":    {"HTTP/1.1 101 Swi", false, "it ended the connection"},
		"drips":             {"HTTP/1.1 101 Switching", true, "no answer"},
		"another service":   {"SSH-2.0-OpenSSH_9.9\r\n", true, "malformed HTTP"},
		"takes no upgrade":  {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true, "200 OK"},
		"another upgrade":   {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", true, "101"},
		"endless":           {"HTTP/1.1 101 Switching Protocols\r\nX: " + strings.Repeat("x", 1<<20), true, "ended the connection"},
		"refuses for long":  {"HTTP/1.1 403 Forbidden\r\n\r\n" + strings.Repeat("no\x1b[2J", 1<<12), false, `403 Forbidden`},
		"refuses in a word": {"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nno\n", true, `503 Service Unavailable ("no")`},
	} {
		addr := answering(t, tc.answer, tc.stay)
		limit := patience
		if tc.want == "no answer" {
			limit = 300 * time.Millisecond
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), limit, errors.New("no answer"))
		_, err := direct.Connect(ctx, dial, addr)
		cancel()
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), "connect to the builder at "+addr) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		} else if len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\x1b\n") {
			t.Errorf("%s: the error is no line: %v", name, err)
		}
	}
}

// What comes behind the answer is not read before somebody wants it.
func TestConnectReadsNoFurther(t *testing.T) {
	addr := answering(t, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: nix-daemon\r\nConnection: Upgrade\r\n\r\nhello", false)
	conn, err := direct.Connect(t.Context(), dial, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if said := ends(t, conn); said != "hello" {
		t.Errorf("it said %q", said)
	}
}

func TestCondition(t *testing.T) {
	var kills int64 = 40
	free := uint64(50 << 30)
	var broken error
	r := serve(t, "exec cat", func(c *direct.Config) {
		c.OOMKills = func() (int64, error) { return kills, broken }
		c.StoreSpace = func(context.Context) (uint64, uint64, error) { return 100 << 30, free, broken }
	})
	condition := func(since time.Time) scheduler.Condition {
		t.Helper()
		c, err := direct.Condition(t.Context(), dial, r.addr, since)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	began := time.Now().Add(-time.Second) // an age is a little older when it arrives
	if diff := cmp.Diff(scheduler.Condition{}, condition(began.Add(-time.Hour))); diff != "" {
		t.Errorf("at first (-want +got):\n%s", diff)
	}
	kills = 42
	if diff := cmp.Diff(scheduler.Condition{OOMKills: 2}, condition(began)); diff != "" {
		t.Errorf("after two kills (-want +got):\n%s", diff)
	}
	kills, free = 43, 63<<20
	if diff := cmp.Diff(scheduler.Condition{OOMKills: 3, DiskFull: true}, condition(began)); diff != "" {
		t.Errorf("after a third, with a full disk (-want +got):\n%s", diff)
	}
	free = 2 << 30
	if diff := cmp.Diff(scheduler.Condition{OOMKills: 3, DiskFull: true}, condition(began)); diff != "" {
		t.Errorf("when there is room again (-want +got):\n%s", diff)
	}
	<-time.After(50 * time.Millisecond) // of what befell it
	if diff := cmp.Diff(scheduler.Condition{}, condition(time.Now())); diff != "" {
		t.Errorf("of a build that begins later (-want +got):\n%s", diff)
	}
	free = 1<<30 - 1
	if !condition(time.Now()).DiskFull {
		t.Error("less than a hundredth of the disk is not full")
	}
	broken = errors.New("nobody knows")
	if got := condition(began); got.Unknown != "nobody knows" || got.OOMKills != 3 {
		t.Errorf("when nobody can tell: %+v", got)
	}
}

// A builder that is in trouble is slow to answer. What had befallen it before it was asked
// counts all the same, and no more than that.
func TestConditionOfASlowBuilder(t *testing.T) {
	var kills atomic.Int64
	r := serve(t, "exec cat", func(c *direct.Config) {
		c.OOMKills = func() (int64, error) { return kills.Load(), nil }
	})
	const transit = 300 * time.Millisecond
	slow := func(ctx context.Context, network, addr string) (net.Conn, error) {
		<-time.After(transit)
		return dial(ctx, network, addr)
	}
	condition := func(dial direct.Dial, since time.Time) scheduler.Condition {
		t.Helper()
		c, err := direct.Condition(t.Context(), dial, r.addr, since)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	condition(dial, time.Now()) // the first look
	began := time.Now()
	kills.Store(1)
	condition(dial, began) // it is seen
	if diff := cmp.Diff(scheduler.Condition{OOMKills: 1}, condition(slow, began)); diff != "" {
		t.Errorf("asked slowly (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(scheduler.Condition{}, condition(slow, time.Now())); diff != "" {
		t.Errorf("of a build that began later (-want +got):\n%s", diff)
	}
}

// What befalls the host between two questions is seen while there are sessions.
func TestTheHostIsWatched(t *testing.T) {
	looks := make(chan struct{}, 100)
	r := serve(t, "exec cat", func(c *direct.Config) {
		c.OOMKills = func() (int64, error) { looks <- struct{}{}; return 0, nil }
	})
	r.connect()
	for range 3 {
		select {
		case <-looks:
		case <-time.After(patience):
			t.Fatal("nobody looks")
		}
	}
}

func TestBuildersThatTellNoCondition(t *testing.T) {
	for name, tc := range map[string]struct{ answer, want string }{
		"no JSON": {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "read its answer"},
		"refuses": {"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "the builder refuses"},
		"endless": {"HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat(" ", 1<<20), "read its answer"},
	} {
		addr := answering(t, tc.answer, false)
		if _, err := direct.Condition(t.Context(), dial, addr, time.Now()); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}
