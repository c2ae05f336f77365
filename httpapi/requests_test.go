package httpapi_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

// do sends a request that the contract may not allow. A body is sent as JSON unless kind
// says otherwise.
func (w *world) do(t *testing.T, from netip.Addr, method, path, kind, body string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(badly(t.Context()), method, base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	return w.send(t, from, req)
}

func (w *world) send(t *testing.T, from netip.Addr, req *http.Request) *http.Response {
	t.Helper()
	res, err := w.http(from).Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

// problemIn reads the problem that res is; the zero problem if it is none.
func problemIn(res *http.Response) *apiclient.ProblemError {
	var p apiclient.Problem
	if res.Header.Get("Content-Type") != problem.MediaType || json.NewDecoder(res.Body).Decode(&p) != nil {
		return &apiclient.ProblemError{Status: res.StatusCode}
	}
	e := &apiclient.ProblemError{Status: res.StatusCode, Slug: problem.FromURI(p.Type), Title: p.Title}
	if p.Detail != nil {
		e.Detail = *p.Detail
	}
	if p.Field != nil {
		e.Field = *p.Field
	}
	return e
}

// kindOf returns the kind of problem that err is, or its text.
func kindOf(err error) string {
	if p, ok := errors.AsType[*apiclient.ProblemError](err); ok && p.Slug != "" {
		return string(p.Slug)
	}
	return err.Error()
}

func isKind(err error, kind problem.Slug) bool { return errors.Is(err, kind) }

// exchange sends text as it is and returns the answer.
func exchange(t *testing.T, conn net.Conn, text string) *http.Response {
	t.Helper()
	go func() { _, _ = io.WriteString(conn, text) }() // a pipe holds nothing: the answer may come first
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	return res
}
