package httpapi_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
	"github.com/go-chi/chi/v5"
	"github.com/google/go-cmp/cmp"

	contract "github.com/Misaka13514/setup-distributed-nix-builds"
	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/httpapi"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

var loadContract = sync.OnceValues(func() (*openapi3.T, error) {
	doc, err := openapi3.NewLoader().LoadFromData(contract.OpenAPI)
	if err != nil {
		return nil, err
	}
	return doc, doc.Validate(context.Background())
})

var contractRoutes = sync.OnceValues(func() (routers.Router, error) {
	doc, err := loadContract()
	if err != nil {
		return nil, err
	}
	served := *doc
	served.Servers = openapi3.Servers{{URL: httpapi.Base}}
	return legacy.NewRouter(&served)
})

// bad marks a request that breaks the contract on purpose; its answer is held to it all the
// same.
type bad struct{}

// badly marks ctx's requests as bad.
func badly(ctx context.Context) context.Context { return context.WithValue(ctx, bad{}, true) }

// held returns a transport that fails the test when a request or its answer is not as the
// contract has it.
func held(t *testing.T, next http.RoundTripper) http.RoundTripper {
	t.Helper()
	routes, err := contractRoutes()
	if err != nil {
		t.Fatal(err)
	}
	return &heldTransport{t, routes, next}
}

type heldTransport struct {
	t      *testing.T
	routes routers.Router
	next   http.RoundTripper
}

func (h *heldTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	onPurpose := r.Context().Value(bad{}) != nil
	asked := r.Clone(context.Background())
	asked.URL.Scheme, asked.URL.Host = "", ""
	if r.Method == http.MethodHead {
		asked.Method = http.MethodGet
	}
	route, params, err := h.routes.FindRoute(asked)
	if err != nil && !onPurpose {
		return nil, fmt.Errorf("%s %s is not in the contract: %w", r.Method, r.URL, err)
	}
	in := &openapi3filter.RequestValidationInput{Request: asked, PathParams: params, Route: route,
		Options: &openapi3filter.Options{MultiError: true}}
	if !onPurpose {
		if r.Body != nil && r.Body != http.NoBody {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return nil, err
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			asked.Body = io.NopCloser(bytes.NewReader(body))
		}
		if err := openapi3filter.ValidateRequest(context.Background(), in); err != nil {
			h.t.Errorf("request %s %s is not as the contract has it: %v", r.Method, r.URL, err)
		}
	}
	res, err := h.next.RoundTrip(r)
	if err != nil || route == nil {
		return res, err
	}
	kind, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";")
	options := &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true}
	out := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: res.StatusCode, Header: res.Header, Options: options,
	}
	if kind == "text/event-stream" || r.Method == http.MethodHead {
		options.ExcludeResponseBody = true // a stream's end is not to be waited for
	} else {
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil {
			return nil, err
		}
		res.Body = io.NopCloser(bytes.NewReader(body))
		out.SetBodyBytes(body)
	}
	if res.StatusCode >= 400 && kind != problem.MediaType {
		h.t.Errorf("%s %s: %s is answered with %q, not with a problem", r.Method, r.URL, res.Status, kind)
	}
	if err := openapi3filter.ValidateResponse(context.Background(), out); err != nil {
		h.t.Errorf("answer %s to %s %s is not as the contract has it: %v", res.Status, r.Method, r.URL, err)
	}
	return res, nil
}

func TestContractIsValid(t *testing.T) {
	if _, err := loadContract(); err != nil {
		t.Fatal(err)
	}
}

func TestRoutesAreTheContracts(t *testing.T) {
	doc, err := loadContract()
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			want = append(want, method+" "+httpapi.Base+path)
		}
	}
	server := newServer(t, newCluster(t))
	err = chi.Walk(server.Handler.(chi.Routes),
		func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
			got = append(got, method+" "+route)
			return nil
		})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("routes of the contract and of the server (-want +got):\n%s", diff)
	}
}

// What the domain checks and what the contract says are the same bounds.
func TestLimitsAreTheContracts(t *testing.T) {
	doc, err := loadContract()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]coordinator.Limit{}
	limitsOf(got, "", doc.Components.Schemas["CheckIn"].Value)
	if diff := cmp.Diff(coordinator.Limits(), got); diff != "" {
		t.Errorf("bounds of a check-in, of the domain and of the contract (-want +got):\n%s", diff)
	}
	detail := doc.Components.Schemas["Departure"].Value.Properties["detail"].Value
	if detail.MaxLength == nil || *detail.MaxLength != coordinator.MaxDetailLength {
		t.Errorf("a departure's detail may have %v characters, want %d", detail.MaxLength, coordinator.MaxDetailLength)
	}
	for _, op := range []string{"/builders/{id}/teardown GET", "/stop-nix-builders POST", "/cluster GET", "/paths GET"} {
		path, method, _ := strings.Cut(op, " ")
		wait := doc.Paths.Value(path).GetOperation(method).Parameters.GetByInAndName("query", "wait").Schema.Value
		if *wait.Max != httpapi.MaxWait || *wait.Min != 0 {
			t.Errorf("%s: wait is from %v to %v, want 0 to %d", op, *wait.Min, *wait.Max, httpapi.MaxWait)
		}
	}
	names := doc.Paths.Value("/stop-nix-builders").Post.Parameters.GetByInAndName("query", "builder").Schema.Value
	if *names.MaxItems != httpapi.MaxReleases {
		t.Errorf("a stop takes %d names, want %d", *names.MaxItems, httpapi.MaxReleases)
	}
}

// limitsOf collects the bounds of schema's members by their pointers.
func limitsOf(all map[string]coordinator.Limit, at string, schema *openapi3.Schema) {
	var l coordinator.Limit
	l.MinLength, l.MinItems = int(schema.MinLength), int(schema.MinItems)
	l.Pattern, l.Unique = schema.Pattern, schema.UniqueItems
	if schema.Min != nil {
		l.Minimum = int64(*schema.Min)
	}
	if schema.Max != nil {
		l.Maximum = int64(*schema.Max)
	}
	if schema.MaxLength != nil {
		l.MaxLength = int(*schema.MaxLength)
	}
	if schema.MaxItems != nil {
		l.MaxItems = int(*schema.MaxItems)
	}
	if l != (coordinator.Limit{}) {
		all[at] = l
	}
	if schema.Items != nil {
		limitsOf(all, at+"/*", schema.Items.Value)
	}
	for name, member := range schema.Properties {
		limitsOf(all, at+"/"+name, member.Value)
	}
}

// Every kind of problem has its section in the page that its type leads to, and the page
// has no others.
func TestProblemsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/problems.md")
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, kind := range problem.Kinds() {
		want = append(want, fmt.Sprintf("%s %d", kind.Slug, kind.Status))
	}
	lines := strings.Split(string(page), "\n")
	for i, line := range lines {
		if slug, ok := strings.CutPrefix(line, "## "); ok {
			var status int
			if _, err := fmt.Sscanf(strings.Join(lines[i+1:], "\n"), "\nStatus %d", &status); err != nil {
				t.Errorf("section %s does not begin with its status", slug)
			}
			got = append(got, fmt.Sprintf("%s %d", slug, status))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kinds of problems and sections of docs/problems.md (-want +got):\n%s", diff)
	}
}
