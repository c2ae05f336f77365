package httpapi_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

// stopNow stops a cluster without waiting for anybody.
var stopNow = coordinator.StopRequest{By: "a test"}

// A web page in the browser of a person who may stop the cluster can't.
func TestCrossOrigin(t *testing.T) {
	for _, test := range []struct {
		name   string
		header map[string]string
		want   problem.Slug
	}{
		{"another site's page", map[string]string{"Sec-Fetch-Site": "cross-site"}, problem.CrossOrigin},
		{"a page of the same site", map[string]string{"Sec-Fetch-Site": "same-site"}, problem.CrossOrigin},
		{"an old browser", map[string]string{"Origin": "https://evil.test"}, problem.CrossOrigin},
		{"a page without an origin", map[string]string{"Origin": "null"}, problem.CrossOrigin},
		{"another port of the host", map[string]string{"Origin": "http://nix-coordinator:8379"}, problem.CrossOrigin},
		{"a page of the server", map[string]string{"Origin": "http://nix-coordinator:8378", "Sec-Fetch-Site": "same-origin"}, ""},
		{"no browser", nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/stop-nix-builders?wait=0", nil)
				for name, value := range test.header {
					req.Header.Set(name, value)
				}
				res := w.send(t, stopper.Addr, req)
				if p := problemIn(res); p.Slug != test.want {
					t.Errorf("got %s, want %q", res.Status, test.want)
				}
				if got, want := w.cluster.View().Phase >= coordinator.Stopping, test.want == ""; got != want {
					t.Errorf("stopped: %v, want %v", got, want)
				}
			})
		})
	}
}

// The Host must be one of ours, or a page could call under its own name.
func TestHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for host, ours := range map[string]bool{
			"nix-coordinator":               true,
			"nix-coordinator:8378":          true,
			"NIX-Coordinator:80":            true,
			"nix-coordinator.tn.test":       true,
			"nix-coordinator.tn.test.:8378": true,
			serverIP:                        true,
			serverIP + ":8378":              true,
			"[::ffff:" + serverIP + "]":     true,
			"evil.test":                     false,
			"evil.test:8378":                false,
			"nix-coordinator.evil.test":     false,
			"nix-coordinator.tn.test.evil":  false,
			"localhost:8378":                false,
			"127.0.0.1:8378":                false,
			"100.64.0.2:8378":               false,
			"[::1]:8378":                    false,
		} {
			for _, path := range []string{"/healthz", "/cluster"} {
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path, nil)
				req.Host = host
				res := w.send(t, self.Addr, req)
				p := problemIn(res)
				if ours && res.StatusCode != http.StatusOK || !ours && (p.Slug != problem.Misdirected || p.Field != "Host") {
					t.Errorf("GET %s from host %s: %s", path, host, res.Status)
				}
			}
		}
	})
}

func TestRequestWithoutHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		conn, err := w.net.Dial(t.Context(), self.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if res := exchange(t, conn, "GET /v1/healthz HTTP/1.0\r\n\r\n"); res.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("got %s", res.Status)
		}
	})
}

func TestHeadersOfAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		_, header := w.get(t, "/cluster")
		for name, want := range map[string]string{
			"Cache-Control":                "no-store",
			"Content-Type":                 "application/json",
			"Cross-Origin-Resource-Policy": "same-origin",
			"X-Content-Type-Options":       "nosniff",
			"Access-Control-Allow-Origin":  "",
			"Server":                       "",
		} {
			if got := header.Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
	})
}

// What breaks inside is a 500 that tells nothing.
func TestPanicIsAProblemWithoutDetail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, panicsFor(reader))
		res := w.do(t, reader.Addr, http.MethodGet, "/cluster", "", "")
		body, _ := io.ReadAll(res.Body)
		if res.StatusCode != 500 || strings.Contains(string(body), "secret") || !strings.Contains(string(body), "#internal") {
			t.Errorf("got %s\n%s", res.Status, body)
		}
		if _, err := w.api(other).Cluster(t.Context()); err != nil {
			t.Errorf("after a panic: %v", err)
		}
	})
}
