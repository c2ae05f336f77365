package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// tokenService answers like GitHub's: with each of the answers in turn, the last again and
// again. What it was asked is in requests.
func tokenService(t *testing.T, answers ...answer) (endpoint string, requests *[]string) {
	t.Helper()
	requests = new([]string)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /token", func(w http.ResponseWriter, r *http.Request) {
		*requests = append(*requests, fmt.Sprintf("%s %s", r.URL.RawQuery, r.Header.Get("Authorization")))
		a := answers[min(len(*requests), len(answers))-1]
		if a.location != "" {
			w.Header().Set("Location", a.location)
		}
		w.WriteHeader(a.status)
		_, _ = io.WriteString(w, a.body)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL + "/token?api-version=2.0", requests
}

type answer struct {
	status         int
	body, location string
}

func TestIDToken(t *testing.T) {
	const asked = "api-version=2.0&audience=api.tailscale.com%2FT1%2B2 bearer of-the-job"
	good := answer{status: 200, body: `{"count": 11, "value": "head.body.signature"}`}
	for name, test := range map[string]struct {
		answers []answer
		want    string
		err     string // part of the error
		tries   int
	}{
		"good":              {answers: []answer{good}, want: "head.body.signature", tries: 1},
		"busy at first":     {answers: []answer{{status: 503}, good}, want: "head.body.signature", tries: 2},
		"too many at first": {answers: []answer{{status: 429}, good}, want: "head.body.signature", tries: 2},
		"unauthorized":      {answers: []answer{{status: 401, body: `{"value": "head.body.signature"}`}}, err: "answers 401", tries: 1},
		"elsewhere":         {answers: []answer{{status: 302, location: "/other"}}, err: "answers 302", tries: 1},
		"no JSON":           {answers: []answer{{status: 200, body: "<html>head.body.signature"}}, err: "no JSON", tries: 1},
		"JSON and more":     {answers: []answer{{status: 200, body: good.body + "{}"}}, err: "no JSON", tries: 1},
		"no token":          {answers: []answer{{status: 200, body: `{"value": "token"}`}}, err: "no token", tries: 1},
		"nothing":           {answers: []answer{{status: 200, body: `{}`}}, err: "no token", tries: 1},
		"two lines":         {answers: []answer{{status: 200, body: `{"value": "head.body\n.signature"}`}}, err: "no token", tries: 1},
		"without end":       {answers: []answer{{status: 200, body: `{"value": "a.b.` + strings.Repeat("c", maxToken) + `"}`}}, err: "no JSON", tries: 1},
	} {
		t.Run(name, func(t *testing.T) {
			endpoint, requests := tokenService(t, test.answers...)
			got, err := idToken(t.Context(), endpoint, "of-the-job", "api.tailscale.com/T1+2")
			if got != test.want {
				t.Errorf("token %q, want %q", got, test.want)
			}
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("error %v, want %q", err, test.err)
			}
			// Neither secret, nor where the service is, is for the log.
			for _, secret := range []string{"signature", "of-the-job", "127.0.0.1"} {
				if err != nil && strings.Contains(err.Error(), secret) {
					t.Errorf("the error shows %s: %v", secret, err)
				}
			}
			var want []string
			for range test.tries {
				want = append(want, asked)
			}
			if diff := cmp.Diff(want, *requests); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

// A service that is not there is asked again for a while, but not by a job that is over.
func TestIDTokenIsGivenUp(t *testing.T) {
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("the job is over"))
	defer cancel()
	if _, err := idToken(ctx, "http://127.0.0.1:1/token", "of-the-job", "aud"); err == nil || ctx.Err() == nil {
		t.Errorf("error %v, before the job is over: %v", err, ctx.Err() == nil)
	}
	if _, err := idToken(t.Context(), "no URL", "of-the-job", "aud"); err == nil || !strings.Contains(err.Error(), tokenURLVar) {
		t.Errorf("error %v for an endpoint that is none", err)
	}
}
