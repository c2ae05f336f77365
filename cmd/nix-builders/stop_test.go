package main

import (
	"log/slog"
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/pipenet"
)

// stopWith calls stopSurely on a server with this handler and tells what it gave and took.
func stopWith(t *testing.T, handler http.HandlerFunc, drain, wait time.Duration) (report apiclient.StopReport, took time.Duration, err error) {
	t.Helper()
	ln := pipenet.Listen("100.64.0.1:8378")
	server := &http.Server{Handler: handler}
	served := make(chan error)
	go func() { served <- server.Serve(ln) }()
	transport := ln.Transport(netip.MustParseAddr("100.64.0.2"))
	transport.DisableKeepAlives = true
	api, err := apiclient.New("http://100.64.0.1:8378/v1", &http.Client{Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	a := &app{set: &settings{}, log: slog.New(slog.DiscardHandler)}
	began := time.Now()
	report, err = a.stopSurely(t.Context(), api, drain, wait, nil)
	took = time.Since(began)
	server.Close()
	<-served
	return report, took, err
}

// A server that takes the call and never answers is given up in the end.
func TestStopGivesASilentServerUp(t *testing.T) {
	for _, drain := range []time.Duration{0, 10 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			const wait = 30 * time.Second
			_, took, err := stopWith(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, drain, wait)
			if err == nil || took > drain+2*wait+time.Minute {
				t.Errorf("ended after %v: %v", took, err)
			}
		})
	}
}

// A server that dies in the middle of a drain is asked again, for what is left of it, and
// that it does not come back is told soon.
func TestStopOfAServerThatDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []string
		dies := func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.URL.Query().Get("drain"))
			if len(asked) <= 2 {
				time.Sleep(4 * time.Minute)
				panic(http.ErrAbortHandler)
			}
			time.Sleep(time.Second)
			w.Header().Set("Content-Type", "application/json")
			w.Write([]byte(`{"phase": "stopped", "stopped_at": "2026-01-01T00:00:00Z", "took_seconds": 1, "builders": []}`))
		}
		report, _, err := stopWith(t, dies, 10*time.Minute, 30*time.Second)
		if err != nil || report.Phase != apiclient.PhaseStopped {
			t.Errorf("%+v, %v", report, err)
		}
		if diff := cmp.Diff([]string{"600", "360", "119"}, asked); diff != "" {
			t.Errorf("drains that were asked for (-want +got):\n%s", diff)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		_, took, err := stopWith(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, time.Hour, 0)
		if err == nil || took > 2*stopRetry {
			t.Errorf("ended after %v: %v", took, err)
		}
	})
}
