package httpapi_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/httpapi"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

// A node that calls without a pause is slowed down to its rate, and nobody else is.
func TestCallsPerNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(cfg *httpapi.Config) { cfg.Limits.Calls = 5 })
		begin := time.Now()
		for range 20 { // what it may do at once
			if _, err := w.api(reader).Cluster(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("the first calls took %v", took)
		}
		_, err := w.api(reader).Cluster(t.Context())
		wantProblem(t, err, problem.TooManyRequests, "")
		if took := time.Since(begin); took != time.Second {
			t.Errorf("the refusal came after %v, want 1 s: what is refused at once is asked again at once", took)
		}
		for i := range 5 { // a second's worth has grown meanwhile
			if _, err := w.api(reader).Cluster(t.Context()); err != nil {
				t.Errorf("call %d a second later: %v", i, err)
			}
		}
		_, err = w.api(reader).Cluster(t.Context())
		wantProblem(t, err, problem.TooManyRequests, "")
		before := time.Now()
		if _, err := w.api(other).Cluster(t.Context()); err != nil || time.Since(before) != 0 {
			t.Errorf("another node is slowed down too: %v, %v", time.Since(before), err)
		}
	})
}

// A caller is told when to try again, and one that has hung up holds nothing.
func TestRefusedForASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(cfg *httpapi.Config) { cfg.Limits.Calls = 1 })
		get := func(ctx context.Context) (*http.Response, error) {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/cluster", nil)
			if err != nil {
				t.Fatal(err)
			}
			return w.http(reader.Addr).Do(req)
		}
		for range 4 {
			if res, err := get(t.Context()); err != nil || res.StatusCode != http.StatusOK {
				t.Fatal(res, err)
			} else {
				res.Body.Close()
			}
		}
		res, err := get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := res.Header.Get("Retry-After"); res.StatusCode != http.StatusTooManyRequests || got != "1" {
			t.Errorf("status %d, Retry-After %q", res.StatusCode, got)
		}
		if _, err := get(t.Context()); err != nil { // the second's one
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := get(ctx); err == nil {
			t.Error("a refusal was answered at once")
		}
		begin := time.Now()
		w.stop() // would wait for whoever is held
		if took := time.Since(begin); took > 50*time.Millisecond {
			t.Errorf("the server's end took %v", took)
		}
	})
}

// Check-ins cost more than other calls, and a builder that repeats them makes neither events
// nor state without bound.
func TestCheckInsPerNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(cfg *httpapi.Config) { cfg.Limits.CheckIns = 1 })
		begin := time.Now()
		refused := 0
		for time.Since(begin) < time.Minute {
			_, _, err := w.api(builder1).CheckIn(t.Context(), checkIn("b1")) // each a new instance
			if err != nil {
				wantProblem(t, err, problem.TooManyRequests, "")
				refused++
			}
		}
		// 16 at once, and then one a second.
		if events := w.cluster.View().Event; events > 16+61 || refused == 0 {
			t.Errorf("in a minute of check-ins %d events came and %d were refused", events, refused)
		}
		if _, _, err := w.api(builder2).CheckIn(t.Context(), checkIn("b2")); err != nil {
			t.Errorf("another builder: %v", err)
		}
	})
}

// Who calls can't fill the disk with lines about it. What was left out is said, and lines
// come again when it is over.
func TestLinesOfALog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		w := newWorld(t, func(cfg *httpapi.Config) {
			cfg.Log, cfg.Limits.Lines = slog.New(slog.NewTextHandler(&log, nil)), 2
		})
		transport := w.net.Transport(stranger)
		defer transport.CloseIdleConnections()
		nowhere := func() { // not in the contract, and nobody is asked who calls
			res, err := (&http.Client{Transport: transport}).Get("http://nix-coordinator:8378/v1/nowhere")
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
		}
		for range 1000 {
			nowhere()
		}
		time.Sleep(time.Second)
		nowhere()
		w.stop()
		if n := strings.Count(log.String(), "\n"); n != 20+1 {
			t.Errorf("1001 calls made %d lines, want 21:\n%s", n, log.String())
		}
		if want := fmt.Sprintf("left_out_before=%d", 1000-20); strings.Count(log.String(), want) != 1 {
			t.Errorf("the log does not say %s:\n%s", want, log.String())
		}
	})
}
