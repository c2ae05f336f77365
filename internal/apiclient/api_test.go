package apiclient_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/pipenet"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

// serve returns the client of a server that answers as h does. What a coordinator answers
// is tested with the real one, in httpapi; here is what it never would.
func serve(t *testing.T, h http.HandlerFunc) *apiclient.API {
	t.Helper()
	listener := pipenet.Listen("100.64.0.1:80")
	server := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	transport := listener.Transport(netip.MustParseAddr("100.64.0.2"))
	t.Cleanup(func() { transport.CloseIdleConnections(); _ = server.Close(); <-done })
	api, err := apiclient.New("http://coordinator/v1/", &http.Client{Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	return api
}

func TestAnswersThatAreNotACoordinators(t *testing.T) {
	answer := func(status int, kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Location", "http://coordinator/elsewhere")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	for _, test := range []struct {
		name    string
		handler http.HandlerFunc
		want    string
	}{
		{"a web page", answer(200, "text/html", "<html>"), "is this a coordinator?"},
		{"broken JSON", answer(200, "application/json", `{"id": 1`), "understand the answer"},
		{"a wrong type", answer(200, "application/json", `{"id": 1}`), "understand the answer"},
		{"a redirect", answer(307, "text/plain", ""), "Temporary Redirect (status 307)"},
		{"a proxy's error", answer(502, "text/html", "<html>"), "Bad Gateway (status 502)"},
		{"another's problem", answer(404, problem.MediaType, `{"type":"about:blank","title":"Lost","status":404}`), "Lost (status 404)"},
		{"a broken problem", answer(409, problem.MediaType, `{`), "Conflict (status 409)"},
		{"too much", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for range 17 {
				_, _ = io.WriteString(w, strings.Repeat(" ", 1<<20))
			}
		}, "over 16 MiB"},
		{"an end in the middle", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "{")
		}, "unexpected EOF"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := serve(t, test.handler)
				_, err := api.Cluster(t.Context())
				if err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "read the cluster at http://coordinator") {
					t.Errorf("got %v, want it to say %q", err, test.want)
				}
				if p, ok := errors.AsType[*apiclient.ProblemError](err); ok && p.Slug != "" {
					t.Errorf("it is taken for our problem %s", p.Slug)
				}
			})
		})
	}
}

// A coordinator that does not answer is given up after the wait and ten seconds more, or
// with the context.
func TestCallsEnd(t *testing.T) {
	id := uuid.New()
	for _, test := range []struct {
		name string
		call func(context.Context, *apiclient.API) error
		want time.Duration
	}{
		{"check-in", func(ctx context.Context, api *apiclient.API) error {
			_, _, err := api.CheckIn(ctx, apiclient.CheckIn{})
			return err
		}, 10 * time.Second},
		{"poll", func(ctx context.Context, api *apiclient.API) error {
			_, err := api.AwaitTeardown(ctx, id, 15*time.Second)
			return err
		}, 25 * time.Second},
		{"endless poll", func(ctx context.Context, api *apiclient.API) error {
			_, err := api.AwaitTeardown(ctx, id, time.Hour)
			return err
		}, 310 * time.Second},
		{"poll without a wait", func(ctx context.Context, api *apiclient.API) error {
			_, err := api.AwaitTeardown(ctx, id, -time.Second)
			return err
		}, 10 * time.Second},
		{"departure", func(ctx context.Context, api *apiclient.API) error {
			return api.Depart(ctx, id, apiclient.Departure{})
		}, 10 * time.Second},
		{"stop", func(ctx context.Context, api *apiclient.API) error {
			_, err := api.Stop(ctx, 30*time.Second)
			return err
		}, 65 * time.Second},
		{"query", func(ctx context.Context, api *apiclient.API) error {
			_, err := api.AwaitCluster(ctx, 1, 50*time.Second)
			return err
		}, 60 * time.Second},
		{"health", func(ctx context.Context, api *apiclient.API) error { return api.Health(ctx) }, 10 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := serve(t, func(_ http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					<-r.Context().Done()
				})
				start := time.Now()
				if err := test.call(t.Context(), api); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v", err)
				}
				if took := time.Since(start); took != test.want {
					t.Errorf("it took %v, want %v", took, test.want)
				}
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("enough"))
				defer cancel()
				start = time.Now()
				if err := test.call(ctx, api); err == nil || time.Since(start) != time.Second {
					t.Errorf("with a context of a second it took %v, %v", time.Since(start), err)
				}
			})
		})
	}
}

func TestProblemError(t *testing.T) {
	err := fmt.Errorf("check in: %w", &apiclient.ProblemError{
		Status: 422, Slug: problem.Invalid, Title: "A value can't be", Detail: "is 0", Field: "/offer/cores"})
	if !errors.Is(err, problem.Invalid) || errors.Is(err, problem.Malformed) || errors.Is(err, io.EOF) {
		t.Error("errors.Is does not tell the kind")
	}
	if got, want := err.Error(), "check in: A value can't be (/offer/cores): is 0"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestBaseURL(t *testing.T) {
	for url, ok := range map[string]bool{
		"http://100.64.0.1:8378/v1": true, "https://c.test/v1/": true, "http://[::1]:8378/v1": true,
		"": false, "100.64.0.1:8378": false, "coordinator/v1": false, "ftp://c.test/v1": false,
		"http:///v1": false, "http://c.test/v1?x": false, "http://c.test/v1#x": false, "http://c.test:x/v1": false,
	} {
		if _, err := apiclient.New(url, nil); (err == nil) != ok {
			t.Errorf("New(%q): %v", url, err)
		}
	}
	if _, err := apiclient.New("ftp://user:sesame@c.test/", nil); err == nil || strings.Contains(err.Error(), "sesame") {
		t.Errorf("the error gives the password away: %v", err)
	}
}
