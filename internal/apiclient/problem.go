package apiclient

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strings"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

// ProblemError is an answer that tells of a problem. errors.Is finds it by its kind:
//
//	if errors.Is(err, problem.NotExpected) { ... }
type ProblemError struct {
	Status   int
	Slug     problem.Slug // empty when it is none of ours: something else answered
	Title    string
	Detail   string      // what happened and what to do; may be empty
	Field    string      // the member (a JSON Pointer) or parameter that is wrong; may be empty
	Instance string      // the request's id in the server's log; may be empty
	Report   *StopReport // who has left, for problem.BuildersRemain
}

// Error tells the problem in one line.
func (e *ProblemError) Error() string {
	var b strings.Builder
	b.WriteString(e.Title)
	if e.Field != "" {
		fmt.Fprintf(&b, " (%s)", e.Field)
	}
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	}
	if e.Slug == "" {
		fmt.Fprintf(&b, " (status %d)", e.Status)
	}
	return b.String()
}

// Is reports whether target is the problem's kind.
func (e *ProblemError) Is(target error) bool {
	slug, ok := target.(problem.Slug)
	return ok && slug == e.Slug
}

// problemOf makes an error of an answer whose status is none of success.
func problemOf(res *http.Response, body []byte) error {
	e := &ProblemError{Status: res.StatusCode, Title: http.StatusText(res.StatusCode)}
	if kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); kind != problem.MediaType {
		return e
	}
	var p struct {
		Problem
		Report *StopReport `json:"report"`
	}
	if err := json.Unmarshal(body, &p); err != nil || p.Title == "" {
		return e
	}
	e.Slug, e.Title, e.Report = problem.FromURI(p.Type), p.Title, p.Report
	e.Detail, e.Field, e.Instance = orEmpty(p.Detail), orEmpty(p.Field), orEmpty(p.Instance)
	return e
}

func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
