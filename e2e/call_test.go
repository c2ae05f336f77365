package e2e_test

import (
	"bytes"
	"strconv"
	"strings"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

// A caller is an ordinary user on a host who has nothing but curl and the API's base URL.
type caller struct {
	host *testbed.Host
	base string
}

// answer is what a call brought.
type answer struct {
	call   string // for messages
	status int    // 0: none
	kind   string // content type
	body   []byte
}

// get makes one call; args are more of curl's.
func (c caller) get(t *testing.T, path string, args ...string) answer {
	t.Helper()
	argv := append([]string{"curl", "-sS", "--max-time", "30", "-w", "\n%{http_code} %{content_type}"}, args...)
	var stderr bytes.Buffer
	cmd := c.host.CommandAs(within(t, patience), testbed.Runner, append(argv, c.base+path)...)
	cmd.Stderr = &stderr
	out, err := cmd.Output() // that curl fails is an answer of status 0
	a := answer{call: c.host.Name() + " calls " + path}
	i := bytes.LastIndexByte(out, '\n')
	if i < 0 {
		t.Fatalf("%s: %v: %s", a.call, err, &stderr)
	}
	a.body = out[:i]
	var code string
	code, a.kind, _ = strings.Cut(string(out[i+1:]), " ")
	if a.status, err = strconv.Atoi(code); err != nil {
		t.Fatalf("%s: curl printed %q", a.call, out)
	}
	return a
}

// post sends JSON.
func (c caller) post(t *testing.T, path, body string) answer {
	t.Helper()
	return c.get(t, path, "-H", "Content-Type: application/json", "--data-raw", body)
}

// ok checks that the call succeeded, with this content type, and returns the body.
func (a answer) ok(t *testing.T, kind string) []byte {
	t.Helper()
	if got, _, _ := strings.Cut(a.kind, ";"); a.status != 200 || got != kind {
		t.Fatalf("%s: answered %d %s, want 200 %s:\n%s", a.call, a.status, a.kind, kind, a.body)
	}
	return a.body
}

// refused checks that the call was answered with this problem.
func (a answer) refused(t *testing.T, want problem.Slug) {
	t.Helper()
	kind := want.Kind()
	if a.status != kind.Status || a.kind != problem.MediaType {
		t.Errorf("%s: answered %d %s, want %d, a problem (%s):\n%s", a.call, a.status, a.kind, kind.Status, want, a.body)
		return
	}
	p := decode[apiclient.Problem](t, a.body)
	if p.Type != want.URI() || p.Title != kind.Title || p.Status != kind.Status || p.Detail == nil || *p.Detail == "" {
		t.Errorf("%s: the problem is %s, want one of type %s with a detail", a.call, a.body, want.URI())
	}
}
