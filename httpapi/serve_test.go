package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/httpapi"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/pipenet"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

// panicsFor makes WhoIs panic for c.
func panicsFor(c httpapi.Caller) func(*httpapi.Config) {
	return func(cfg *httpapi.Config) {
		cfg.WhoIs = func(ctx context.Context, remote string) (httpapi.Caller, error) {
			if strings.HasPrefix(remote, c.Addr.String()+":") {
				panic("secret")
			}
			return whoIs(ctx, remote)
		}
	}
}

// When the server ends, what waits is answered at once, as if its time had passed.
func TestServeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ticket := w.join(builder1)
		w.join(builder2)
		ended := make(chan string, 4)
		go func() {
			_, err := w.api(self).Stop(t.Context(), 30*time.Second, "b2")
			wantProblem(t, err, problem.Unavailable, "")
			ended <- "stop"
		}()
		synctest.Wait()
		revision := w.cluster.View().Revision
		go func() {
			teardown, err := w.api(builder1).AwaitTeardown(t.Context(), ticket.Id, 15*time.Second)
			if teardown != nil || err != nil {
				t.Errorf("poll: %v, %v", teardown, err)
			}
			ended <- "poll"
		}()
		go func() {
			cluster, err := w.api(reader).AwaitCluster(t.Context(), revision, 50*time.Second)
			if cluster.Revision != revision || err != nil {
				t.Errorf("query: %+v, %v", cluster, err)
			}
			ended <- "query"
		}()
		stream := w.open(t, other.Addr, "")
		go func() {
			stream.rest(t)
			ended <- "stream"
		}()
		synctest.Wait()
		if len(ended) > 0 {
			t.Fatalf("the %s has ended already", <-ended)
		}
		start := time.Now()
		w.stop()
		for range 4 {
			<-ended
		}
		within(t, "the end", time.Since(start), 0)
	})
}

// An answer that nobody takes does not hold the end up for longer than its bound.
func TestServeEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		server := newServer(t, newCluster(t), func(cfg *httpapi.Config) { cfg.Log = slog.New(slog.NewTextHandler(&log, nil)) })
		listener := pipenet.Listen(serverIP + ":8378")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- server.Serve(ctx, listener) }()
		conn, err := listener.Dial(t.Context(), self.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("GET /v1/openapi.yaml HTTP/1.1\r\nHost: nix-coordinator\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		start := time.Now()
		cancel()
		err = <-ended
		within(t, "the end", time.Since(start), 5*time.Second)
		synctest.Wait() // for the handler's last word
		if err != nil || !strings.Contains(log.String(), "cut off") {
			t.Errorf("Serve: %v, and the log\n%s", err, &log)
		}
	})
}

func TestServeFailsWithItsListener(t *testing.T) {
	server := newServer(t, newCluster(t))
	good, closed := pipenet.Listen(serverIP+":1"), pipenet.Listen(serverIP+":2")
	_ = closed.Close()
	if err := server.Serve(t.Context(), good, closed); err == nil || !strings.Contains(err.Error(), serverIP+":2") {
		t.Errorf("Serve: %v", err)
	}
	if _, err := good.Accept(); err == nil {
		t.Error("the other listener is still open")
	}
}

func TestNewNeedsItsParts(t *testing.T) {
	if _, err := httpapi.New(httpapi.Config{}); err == nil {
		t.Error("a server without a cluster")
	}
}

// One line a request: debug for what comes over and over, and nothing of what a caller
// sent but its path.
func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		w := newWorld(t, func(cfg *httpapi.Config) {
			cfg.Log = slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
		})
		global := slog.Default()
		ticket := w.join(builder1)
		w.join(builder1)
		_, _ = w.api(builder1).AwaitTeardown(t.Context(), ticket.Id, time.Second)
		_ = w.api(untagged).Health(t.Context())
		_, _ = w.api(untagged).Cluster(t.Context())
		_, _ = w.api(reader).AwaitCluster(t.Context(), w.cluster.View().Revision, time.Second)
		gone, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _ = w.api(builder1).AwaitTeardown(gone, ticket.Id, 15*time.Second)
		synctest.Wait()
		res := w.do(t, builder1.Addr, http.MethodPost, "/check-ins", "application/json", `{"cluster": "sesame"}`)
		_ = res.Body.Close()
		_, _ = w.api(self).Stop(t.Context(), 0)
		w.stop()

		var got []string
		for _, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
			var rec struct {
				Level       string
				Caller      string
				HTTPRequest struct {
					Method, Path, RequestID string
				}
				HTTPResponse struct{ Status int }
				Problem      struct{ Type string }
			}
			if err := json.Unmarshal([]byte(line), &rec); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			path := strings.ReplaceAll(rec.HTTPRequest.Path, ticket.Id.String(), "ID")
			got = append(got, strings.TrimSpace(strings.Join([]string{rec.Level, rec.HTTPRequest.Method, path,
				http.StatusText(rec.HTTPResponse.Status), rec.Caller, rec.Problem.Type}, " ")))
			if len(rec.HTTPRequest.RequestID) != 12 {
				t.Errorf("request id %q", rec.HTTPRequest.RequestID)
			}
		}
		want := []string{
			"DEBUG POST /v1/check-ins Created b1",
			"DEBUG POST /v1/check-ins OK b1",
			"DEBUG GET /v1/builders/ID/teardown No Content b1",
			"DEBUG GET /v1/healthz OK",
			"INFO GET /v1/cluster Forbidden laptop forbidden",
			"DEBUG GET /v1/cluster OK reader@example.com on reader",
			"DEBUG GET /v1/builders/ID/teardown  b1",
			"INFO POST /v1/check-ins Bad Request b1 malformed",
			"ERROR POST /v1/stop-nix-builders Gateway Timeout nix-coordinator builders-remain",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("log (-want +got):\n%s", diff)
		}
		if strings.Contains(out.String(), "sesame") {
			t.Error("the log has what a caller sent")
		}
		if slog.Default() != global {
			t.Error("the default logger was changed")
		}
	})
}

// The id of a request leads from its answer to the log, and callers don't choose it.
func TestRequestIDIsOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		w := newWorld(t, func(cfg *httpapi.Config) { cfg.Log = slog.New(slog.NewTextHandler(&out, nil)) })
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/cluster", nil)
		req.Header.Set("X-Request-Id", "mine")
		res := w.send(t, untagged.Addr, req)
		var p struct{ Instance string }
		if err := json.NewDecoder(res.Body).Decode(&p); err != nil {
			t.Fatal(err)
		}
		w.stop()
		if p.Instance == "" || p.Instance == "mine" || !strings.Contains(out.String(), p.Instance) {
			t.Errorf("instance is %q, and the log\n%s", p.Instance, &out)
		}
	})
}
