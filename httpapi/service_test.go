package httpapi_test

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	contract "github.com/Misaka13514/setup-distributed-nix-builds"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

func TestServiceCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.join(builder1)
		body, header := w.get(t, "/openapi.yaml")
		if body != string(contract.OpenAPI) || header.Get("Content-Type") != "application/yaml" {
			t.Errorf("the contract is served as %q, %d bytes", header.Get("Content-Type"), len(body))
		}
		_, err := w.api(self).Stop(t.Context(), 0)
		wantProblem(t, err, problem.BuildersRemain, "")
		_, _, err = w.api(builder2).CheckIn(t.Context(), checkIn("b9"))
		wantProblem(t, err, problem.NotExpected, "")
		body, _ = w.get(t, "/metrics")
		for _, want := range []string{
			`nix_builders_cluster_phase{phase="stopping"} 1`,
			`nix_builders_cluster_phase{phase="ready"} 0`,
			`nix_builders_builders{state="joined"} 1`,
			`nix_builders_builders{state="expected"} 2`,
			`nix_builders_check_ins_total{outcome="accepted"} 1`,
			`nix_builders_check_ins_total{outcome="not-expected"} 1`,
			`nix_builders_http_requests_total{method="POST",route="/v1/check-ins",status="201"} 1`,
			`nix_builders_http_requests_total{method="POST",route="/v1/stop-nix-builders",status="504"} 1`,
			`nix_builders_stop_duration_seconds_count{outcome="remain"} 1`,
			`nix_builders_waiting_requests{for="teardown"} 0`,
			`nix_builders_quorum 3`,
			"go_goroutines", "process_open_fds",
		} {
			if !strings.Contains(body, want) {
				t.Errorf("metrics lack %q", want)
			}
		}
		if t.Failed() {
			for line := range strings.Lines(body) {
				if strings.HasPrefix(line, "nix_builders") {
					t.Log(line)
				}
			}
		}
	})
}

// The contract has one format of the metrics, whatever a caller would take.
func TestMetricsAreText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, accept := range []string{
			"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
			"application/openmetrics-text; version=1.0.0", "application/json", "*/*",
		} {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/metrics", nil)
			req.Header.Set("Accept", accept)
			res := w.send(t, self.Addr, req)
			if kind := res.Header.Get("Content-Type"); res.StatusCode != http.StatusOK || !strings.HasPrefix(kind, "text/plain; version=0.0.4") {
				t.Errorf("Accept %s: %s, %q", accept, res.Status, kind)
			}
		}
	})
}

// Labels of metrics come from the routes, never from what callers send.
func TestMetricsStayBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, path := range []string{"/a", "/b", "/v1/c", "/v1/builders/1/2/3"} {
			for _, method := range []string{"GET", "BREW", "STEEP"} {
				req, _ := http.NewRequestWithContext(badly(t.Context()), method, "http://nix-coordinator"+path, nil)
				res, err := w.http(self.Addr).Do(req)
				if err != nil {
					t.Fatal(err)
				}
				_ = res.Body.Close()
			}
		}
		body, _ := w.get(t, "/metrics")
		var got []string
		for line := range strings.Lines(body) {
			if strings.HasPrefix(line, "nix_builders_http_requests_total") {
				got = append(got, strings.TrimSpace(line))
			}
		}
		want := []string{
			`nix_builders_http_requests_total{method="GET",route="other",status="404"} 4`,
			`nix_builders_http_requests_total{method="other",route="other",status="404"} 8`,
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("requests that were counted (-want +got):\n%s", diff)
		}
	})
}

// get returns what the coordinator's own node gets at path.
func (w *world) get(t *testing.T, path string) (string, http.Header) {
	t.Helper()
	res, err := w.http(self.Addr).Get(base + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v\n%s", path, res.Status, err, body)
	}
	return string(body), res.Header
}
