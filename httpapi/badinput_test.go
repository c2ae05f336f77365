package httpapi_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/httpapi"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

func TestBadDepartures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ticket := w.join(builder1)
		before := w.cluster.View()
		good := map[string]any{"reason": "failed", "detail": "x", "vitals": vitals()}
		for _, c := range []change{
			{"/reason", "", problem.Malformed, "/reason"},
			{"/reason", "null", problem.Malformed, "/reason"},
			{"/reason", "1", problem.Malformed, "/reason"},
			{"/reason", `""`, problem.Invalid, "/reason"},
			{"/reason", `"bored"`, problem.Invalid, "/reason"},
			{"/detail", "null", problem.Malformed, "/detail"},
			{"/detail", "[]", problem.Malformed, "/detail"},
			{"/detail", `"` + strings.Repeat("é", 1025) + `"`, problem.Invalid, "/detail"},
			{"/vitals", "null", problem.Malformed, "/vitals"},
			{"/vitals", "{}", problem.Malformed, "/vitals/builds"},
			{"/vitals/builds", "", problem.Malformed, "/vitals/builds"},
			{"/vitals/more", "1", problem.Malformed, "/vitals/more"},
			{"/vitals/peak_builds", "-1", problem.Invalid, "/vitals/peak_builds"},
			{"/vitals/busy_seconds", "-0.5", problem.Invalid, "/vitals/busy_seconds"},
			{"/outcome", `"ok"`, problem.Malformed, "/outcome"},
		} {
			res := w.do(t, builder1.Addr, http.MethodPost, "/builders/"+ticket.Id.String()+"/departure",
				"application/json", c.apply(t, good))
			if p := problemIn(res); p.Slug != c.want || p.Field != c.field {
				t.Errorf("%s set to %.40s: got %s at %q, want %s at %q", c.at, c.to, p.Slug, p.Field, c.want, c.field)
			}
		}
		w.unharmed(t, before.Revision)
	})
}

// What is wrong with a body as a whole.
func TestBadBodies(t *testing.T) {
	good, err := json.Marshal(checkIn("b1"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(good)
	padded := func(n int) string { return text + strings.Repeat(" ", n-len(text)) }
	for _, test := range []struct {
		name, kind, body string
		want             problem.Slug
		field            string
	}{
		{"empty", "application/json", "", problem.Malformed, ""},
		{"blank", "application/json", " \n", problem.Malformed, ""},
		{"null", "application/json", "null", problem.Malformed, ""},
		{"array", "application/json", "[" + text + "]", problem.Malformed, ""},
		{"number", "application/json", "7", problem.Malformed, ""},
		{"text", "application/json", "hello", problem.Malformed, ""},
		{"cut short", "application/json", text[:len(text)-1], problem.Malformed, ""},
		{"two values", "application/json", text + text, problem.Malformed, ""},
		{"two numbers", "application/json", "1 2", problem.Malformed, ""},
		{"more behind", "application/json", text + "}", problem.Malformed, ""},
		{"repeated member", "application/json", `{"name":"b1",` + text[1:], problem.Malformed, "/name"},
		{"repeated deep member", "application/json", strings.Replace(text, `"cores":4`, `"cores":4,"cores":5`, 1),
			problem.Malformed, "/offer/cores"},
		{"not UTF-8", "application/json", strings.Replace(text, "b1", "b\xff", 1), problem.Malformed, "/name"},
		{"a byte order mark", "application/json", "\ufeff" + text, problem.Malformed, ""},
		{"deep", "application/json", strings.Repeat("[", 60000), problem.Malformed, "*"},
		{"64 KiB", "application/json", padded(httpapi.MaxBody), "", ""},
		{"64 KiB + 1", "application/json", padded(httpapi.MaxBody + 1), problem.TooLarge, ""},
		{"1 MiB", "application/json", padded(1 << 20), problem.TooLarge, ""},
		{"charset", "application/json; charset=utf-8", text, "", ""},
		{"other charset", "application/json; charset=latin1", text, problem.UnsupportedMediaType, "Content-Type"},
		{"no type", "", text, problem.UnsupportedMediaType, "Content-Type"},
		{"form", "application/x-www-form-urlencoded", text, problem.UnsupportedMediaType, "Content-Type"},
		{"plain", "text/plain", text, problem.UnsupportedMediaType, "Content-Type"},
		{"type that is none", "json;;", text, problem.UnsupportedMediaType, "Content-Type"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				res := w.do(t, builder1.Addr, http.MethodPost, "/check-ins", test.kind, test.body)
				p := problemIn(res)
				if p.Slug != test.want || (test.field != "*" && p.Field != test.field) {
					t.Errorf("got %s at %q (%s), want %s at %q", p.Slug, p.Field, p.Detail, test.want, test.field)
				}
				if test.want == "" && res.StatusCode != http.StatusCreated {
					t.Errorf("status %d", res.StatusCode)
				}
			})
		})
	}
}

func TestBodiesOfOtherForms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		gzip, _ := http.NewRequestWithContext(badly(t.Context()), http.MethodPost, base+"/check-ins", strings.NewReader("{}"))
		gzip.Header.Set("Content-Type", "application/json")
		gzip.Header.Set("Content-Encoding", "gzip")
		if p := problemIn(w.send(t, builder1.Addr, gzip)); p.Slug != problem.UnsupportedMediaType || p.Field != "Content-Encoding" {
			t.Errorf("gzip: %s at %q", p.Slug, p.Field)
		}
		// Of unknown length, so that the limit is met while reading.
		chunked, _ := http.NewRequestWithContext(badly(t.Context()), http.MethodPost, base+"/check-ins",
			io.LimitReader(zeros{}, httpapi.MaxBody+1))
		chunked.Header.Set("Content-Type", "application/json")
		if p := problemIn(w.send(t, builder1.Addr, chunked)); p.Slug != problem.TooLarge {
			t.Errorf("64 KiB + 1 in chunks: %s", p.Slug)
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return copy(p, bytes.Repeat([]byte(" "), len(p))), nil }

func TestBadParameters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.join(builder1).Id.String()
		before := w.cluster.View()
		poll, leave := "/builders/"+id+"/teardown", "/builders/"+id+"/departure"
		for _, test := range []struct{ method, path, field string }{
			{"GET", poll + "?wait=-1", "wait"}, {"GET", poll + "?wait=301", "wait"}, {"GET", poll + "?wait=", "wait"},
			{"GET", poll + "?wait=1.5", "wait"}, {"GET", poll + "?wait=NaN", "wait"}, {"GET", poll + "?wait=1e1", "wait"},
			{"GET", poll + "?wait=%2B1", "wait"}, {"GET", poll + "?wait=-0", "wait"}, {"GET", poll + "?wait=0x1", "wait"},
			{"GET", poll + "?wait=99999999999999999999", "wait"}, {"GET", poll + "?wait=1&wait=1", "wait"},
			{"GET", poll + "?Wait=1", "Wait"}, {"GET", poll + "?after=1", "after"}, {"GET", poll + "?a;b", ""},
			{"GET", poll + "?%zz", ""}, {"GET", poll + "?=1", ""},
			{"GET", "/builders/" + id[:35] + "/teardown", "id"}, {"GET", "/builders/b1/teardown", "id"},
			{"GET", "/builders/urn:uuid:" + id + "/teardown", "id"}, {"GET", "/builders/{" + id + "}/teardown", "id"},
			{"POST", leave + "?wait=1", "wait"}, {"POST", "/check-ins?x=1", "x"},
			{"POST", "/stop-nix-builders?wait=-1", "wait"}, {"POST", "/stop-nix-builders?wait=1&wait=2", "wait"},
			{"POST", "/stop-nix-builders?force=1", "force"}, {"POST", "/stop-nix-builders?builders=b1", "builders"},
			{"POST", "/stop-nix-builders?" + strings.Repeat("builder=b1&", 256) + "builder=b1", "builder"},
			{"GET", "/cluster?after=-1", "after"}, {"GET", "/cluster?after=9223372036854775808", "after"},
			{"GET", "/cluster?wait=301", "wait"}, {"GET", "/cluster?watch", "watch"},
			{"GET", "/paths?after=-1", "after"}, {"GET", "/paths?wait=301", "wait"}, {"GET", "/paths?path=x", "path"},
			{"GET", "/events?after=1", "after"}, {"GET", "/metrics?x", "x"}, {"GET", "/healthz?x", "x"},
			{"GET", "/openapi.yaml?x", "x"},
		} {
			from := self.Addr
			if strings.HasPrefix(test.path, "/builders") || strings.HasPrefix(test.path, "/check-ins") {
				from = builder1.Addr
			}
			p := problemIn(w.do(t, from, test.method, test.path, "application/json", ""))
			if p.Slug != problem.Malformed || p.Field != test.field {
				t.Errorf("%s %s: got %d %s at %q, want %s at %q",
					test.method, test.path, p.Status, p.Slug, p.Field, problem.Malformed, test.field)
			}
		}
		w.unharmed(t, before.Revision)
	})
}

func TestBodyWhereNoneBelongs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, path := range []string{"POST /stop-nix-builders", "GET /cluster", "GET /metrics", "GET /healthz"} {
			method, path, _ := strings.Cut(path, " ")
			if p := problemIn(w.do(t, self.Addr, method, path, "application/json", "{}")); p.Slug != problem.Malformed {
				t.Errorf("%s %s with a body: %s", method, path, p.Slug)
			}
			chunked, _ := http.NewRequestWithContext(badly(t.Context()), method, base+path, io.MultiReader(strings.NewReader("{}")))
			if p := problemIn(w.send(t, self.Addr, chunked)); p.Slug != problem.Malformed {
				t.Errorf("%s %s with a body in chunks: %s", method, path, p.Slug)
			}
		}
		if phase := w.cluster.View().Phase.String(); phase != "gathering" {
			t.Errorf("the cluster is %s", phase)
		}
	})
}

func TestPathsAndMethods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.join(builder1).Id.String()
		for _, test := range []struct {
			method, path string
			want         problem.Slug
			allow        string
		}{
			{"GET", "/", problem.NotFound, ""},
			{"GET", "/clusters", problem.NotFound, ""},
			{"GET", "/cluster/", problem.NotFound, ""},
			{"GET", "/../../etc/passwd", problem.NotFound, ""},
			{"GET", "/builders//teardown", problem.Malformed, ""},
			{"GET", "/stop-nix-builders", problem.MethodNotAllowed, "POST"},
			{"PUT", "/check-ins", problem.MethodNotAllowed, "POST"},
			{"OPTIONS", "/cluster", problem.MethodNotAllowed, "GET"},
			{"DELETE", "/builders/" + id + "/departure", problem.MethodNotAllowed, "POST"},
			{"BREW", "/cluster", problem.MethodNotAllowed, "GET"},
			{"TRACE", "/cluster", problem.MethodNotAllowed, "GET"},
		} {
			res := w.do(t, builder1.Addr, test.method, test.path, "", "")
			if p := problemIn(res); p.Slug != test.want || res.Header.Get("Allow") != test.allow {
				t.Errorf("%s %s: got %d %s, Allow %q; want %s, %q",
					test.method, test.path, p.Status, p.Slug, res.Header.Get("Allow"), test.want, test.allow)
			}
		}
		for path, want := range map[string]int{
			"/cluster": 200, "/healthz": 200, "/metrics": 200, "/openapi.yaml": 200, "/events": 200,
			"/nothing": 404, "/stop-nix-builders": 405, "/builders/" + id + "/teardown": 405,
		} {
			res := w.do(t, builder1.Addr, http.MethodHead, path, "", "")
			if body, err := io.ReadAll(res.Body); res.StatusCode != want || len(body) != 0 || err != nil {
				t.Errorf("HEAD %s: %d, body %q, %v; want %d", path, res.StatusCode, body, err, want)
			}
		}
	})
}

// What is sent again, or in a wrong order, changes nothing that it should not.
func TestReplayedAndOutOfOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		api := w.api(builder1)
		goodbye := apiclient.Departure{Reason: apiclient.DepartureReasonCancelled}
		wantProblem(t, api.Depart(t.Context(), uuid.New(), goodbye), problem.UnknownBuilder, "")
		old := w.join(builder1)
		for range 3 {
			if err := api.Depart(t.Context(), old.Id, goodbye); err != nil {
				t.Errorf("departure: %v", err)
			}
		}
		if teardown, err := api.AwaitTeardown(t.Context(), old.Id, time.Second); err != nil || teardown == nil {
			t.Errorf("poll after the departure: %v, %v", teardown, err)
		}
		again := w.join(builder1)
		if again.Id == old.Id {
			t.Error("after its departure it has its old id again")
		}
		wantProblem(t, api.Depart(t.Context(), old.Id, goodbye), problem.Replaced, "")
		if state := w.cluster.View().Builders[0].State.String(); state != "joined" {
			t.Errorf("b1 is %s", state)
		}
	})
}

// unharmed checks that the cluster is as it was at the revision and works.
func (w *world) unharmed(t *testing.T, revision int64) {
	t.Helper()
	if now := w.cluster.View().Revision; now != revision {
		t.Errorf("the cluster changed from revision %d to %d", revision, now)
	}
	if _, _, err := w.api(builder2).CheckIn(t.Context(), checkIn("b2")); err != nil {
		t.Errorf("a good check-in: %v", err)
	}
}
