package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/httpapi"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

// socketServer serves a cluster on real sockets and returns its address. Every caller is b1
// but for those over the local listener.
func socketServer(t *testing.T, network, addr string, options ...func(*httpapi.Config)) net.Addr {
	t.Helper()
	server := newServer(t, newCluster(t), append([]func(*httpapi.Config){func(cfg *httpapi.Config) {
		cfg.WhoIs = func(context.Context, string) (httpapi.Caller, error) { return builder1, nil }
		cfg.Log = nil
	}}, options...)...)
	listener, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	if network == "unix" {
		listener = httpapi.Local(listener)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return listener.Addr()
}

// A thousand connections that send nothing are closed in time, and meanwhile everybody else
// is answered.
func TestSilentConnections(t *testing.T) {
	const n, head = 1000, 2 * time.Second
	at := socketServer(t, "tcp", "127.0.0.1:0", func(cfg *httpapi.Config) { cfg.Limits.Head = head })
	api, err := apiclient.New("http://"+at.String()+"/v1", nil)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	var all sync.WaitGroup
	for range n {
		conn, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			defer conn.Close()
			_ = conn.SetReadDeadline(start.Add(10 * head))
			if got, err := io.ReadAll(conn); err != nil || len(got) > 0 {
				t.Errorf("a silent connection got %q, %v", got, err)
			}
		})
	}
	if _, first, err := api.CheckIn(t.Context(), checkIn("b1")); err != nil || !first {
		t.Errorf("a check-in meanwhile: first=%v, %v", first, err)
	}
	if took := time.Since(start); took > head {
		t.Logf("the machine is slow: the check-in was answered after %v", took)
	}
	all.Wait()
	if _, err := api.Cluster(t.Context()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// One address can't hold all connections; the loopback, from where all come with userspace
// networking, may.
func TestConnectionsPerAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(cfg *httpapi.Config) { cfg.Limits.ConnsPerAddr, cfg.Limits.Conns = 3, 10 })
		open := func(from netip.Addr, n int) (held []net.Conn) {
			for range n {
				conn, err := w.net.Dial(t.Context(), from)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close() })
				held = append(held, conn)
			}
			return held
		}
		closed := func(conn net.Conn) bool {
			_ = conn.SetReadDeadline(time.Now().Add(time.Second))
			_, err := conn.Read(make([]byte, 1))
			return err == io.EOF
		}
		three := open(builder1.Addr, 3)
		if !closed(open(builder1.Addr, 1)[0]) {
			t.Error("a fourth connection of one address is kept")
		}
		if _, err := w.api(builder2).Cluster(t.Context()); err != nil {
			t.Errorf("another address: %v", err)
		}
		_ = three[0].Close()
		synctest.Wait()
		if closed(open(builder1.Addr, 1)[0]) {
			t.Error("after one of three was closed, a new one is refused")
		}
		six := open(netip.MustParseAddr("127.0.0.1"), 6)
		if closed(six[5]) {
			t.Error("the sixth connection of the loopback is refused")
		}
		if !closed(open(builder3.Addr, 1)[0]) {
			t.Error("an eleventh connection is kept")
		}
	})
}

// Requests that come in drops, or stop in the middle, are given up in time.
func TestSlowRequests(t *testing.T) {
	for _, test := range []struct {
		name, text, drops string
		answer            int // 0: closed without one
		after             time.Duration
	}{
		{"half a head", "POST /v1/check-ins HT", "", http.StatusBadRequest, 10 * time.Second},
		{"a head in drops", "GET /v1/cluster HTTP/1.1\r\n", "X: y\r\n", 0, 10 * time.Second},
		{"half a body", "POST /v1/check-ins HTTP/1.1\r\nHost: nix-coordinator\r\nContent-Type: application/json\r\n" +
			"Content-Length: 100\r\n\r\n{\"cluster\":", "", http.StatusRequestTimeout, 10 * time.Second},
		{"a body in drops", "POST /v1/check-ins HTTP/1.1\r\nHost: nix-coordinator\r\nContent-Type: application/json\r\n" +
			"Content-Length: 1000\r\n\r\n", " ", http.StatusRequestTimeout, 10 * time.Second},
		{"half a chunk", "POST /v1/check-ins HTTP/1.1\r\nHost: nix-coordinator\r\nContent-Type: application/json\r\n" +
			"Transfer-Encoding: chunked\r\n\r\n64\r\n{", "", http.StatusRequestTimeout, 10 * time.Second},
		{"a body that is not asked for", "GET /v1/healthz HTTP/1.1\r\nHost: nix-coordinator\r\n" +
			"Content-Length: 100\r\n\r\n", "", http.StatusBadRequest, 0},
		{"chunks that are not asked for", "GET /v1/healthz HTTP/1.1\r\nHost: nix-coordinator\r\n" +
			"Transfer-Encoding: chunked\r\n\r\n", "", http.StatusRequestTimeout, 10 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				conn, err := w.net.Dial(t.Context(), builder1.Addr)
				if err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				sent := make(chan struct{})
				defer func() { _ = conn.Close(); <-sent }()
				go func() {
					defer close(sent)
					_, err := io.WriteString(conn, test.text)
					for test.drops != "" && err == nil {
						time.Sleep(time.Second)
						_, err = io.WriteString(conn, test.drops)
					}
				}()
				got, _ := io.ReadAll(io.LimitReader(conn, 12))
				within(t, "the answer", time.Since(start), test.after)
				want := ""
				if test.answer != 0 {
					want = fmt.Sprintf("HTTP/1.1 %d", test.answer)
				}
				if string(got) != want {
					t.Errorf("answer %q, want %q", got, want)
				}
				_, _ = io.ReadAll(conn)
				if took := time.Since(start); took > 11*time.Second {
					t.Errorf("the connection was open for %v", took)
				}
				w.unharmed(t, w.cluster.View().Revision)
			})
		})
	}
}

// A poll goes on after the time that a body may take.
func TestBodyTimeDoesNotCutPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ticket := w.join(builder1)
		conn, err := w.net.Dial(t.Context(), builder1.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		start := time.Now()
		// An empty chunked body is none.
		res := exchange(t, conn, "GET /v1/builders/"+ticket.Id.String()+"/teardown HTTP/1.1\r\nHost: nix-coordinator\r\n"+
			"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
		if res.StatusCode != http.StatusNoContent || res.Close {
			t.Errorf("answer %s, close %v", res.Status, res.Close)
		}
		within(t, "the poll", time.Since(start), 15*time.Second)
	})
}

// What people type in a step of their workflow.
func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("no curl on PATH")
	}
	socket := filepath.Join(t.TempDir(), "api")
	socketServer(t, "unix", socket)
	run := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), curl, append([]string{"--unix-socket", socket, "-sS", "-m", "20"}, args...)...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		return out.String(), err
	}
	const api = "http://coordinator/v1"
	for _, args := range [][]string{
		{"-f", "-X", "POST", api + "/stop-nix-builders"},
		{"-f", "-X", "POST", "-d", "", api + "/stop-nix-builders"},
		{"-f", "-X", "POST", "--http1.0", api + "/stop-nix-builders?wait=5"},
	} {
		out, err := run(args...)
		var report apiclient.StopReport
		if err != nil || json.Unmarshal([]byte(out), &report) != nil || report.Phase != apiclient.PhaseStopped {
			t.Errorf("curl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	for _, args := range [][]string{
		{"-f", "-X", "POST", "-d", "{}", api + "/stop-nix-builders"},
		{"-f", api + "/stop-nix-builders"},
		{"-f", "-X", "POST", "-H", "Origin: https://evil.test", api + "/stop-nix-builders"},
	} {
		if out, err := run(args...); err == nil {
			t.Errorf("curl %s succeeds:\n%s", strings.Join(args, " "), out)
		}
	}
	out, err := run("-f", "-I", api+"/cluster")
	if err != nil || !strings.HasPrefix(out, "HTTP/1.1 200") {
		t.Errorf("curl -I: %v\n%s", err, out)
	}
}

// With a builder that stays, curl -f fails, and without -f the report is there.
func TestCurlFailsWhenBuildersRemain(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("no curl on PATH")
	}
	at := socketServer(t, "tcp", "127.0.0.1:0", func(cfg *httpapi.Config) {
		both := builder1
		both.Caps = []string{"stop"}
		cfg.WhoIs = func(context.Context, string) (httpapi.Caller, error) { return both, nil }
	})
	api, err := apiclient.New("http://"+at.String()+"/v1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := api.CheckIn(t.Context(), checkIn("b1")); err != nil {
		t.Fatal(err)
	}
	stop := "http://" + at.String() + "/v1/stop-nix-builders?wait=0"
	if out, err := exec.CommandContext(t.Context(), curl, "-fsS", "-X", "POST", stop).CombinedOutput(); err == nil {
		t.Errorf("curl -f succeeds:\n%s", out)
	}
	out, err := exec.CommandContext(t.Context(), curl, "-sS", "-X", "POST", stop).CombinedOutput()
	var p apiclient.StopProblem
	if err != nil || json.Unmarshal(out, &p) != nil || problem.FromURI(p.Type) != problem.BuildersRemain || len(p.Report.Builders) != 3 {
		t.Errorf("curl: %v\n%s", err, out)
	}
}
