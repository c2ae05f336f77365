package httpapi

import (
	"context"
	"errors"
	"net/http"

	"github.com/go-chi/chi/v5/middleware"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

// A refusal is an error of the HTTP side, where the domain has no say.
type refusal struct {
	slug   problem.Slug
	detail string // for the caller: what happened, what to do
	field  string // the member or parameter that is wrong; may be empty
}

func (e *refusal) Error() string { return string(e.slug) + ": " + e.detail }

// errEnding is why requests end when the server is shut down.
var errEnding = errors.New("the server is shutting down")

// statusClientGone is logged and counted for a request whose caller left before the answer.
const statusClientGone = 499

// known says, in order, which problem an error of the domain is. What is not in it is a
// failure of ours, told without detail.
func known() []struct {
	err  error
	slug problem.Slug
} {
	return []struct {
		err  error
		slug problem.Slug
	}{
		{coordinator.ErrWrongCluster, problem.WrongCluster},
		{coordinator.ErrNotExpected, problem.NotExpected},
		{coordinator.ErrNotYours, problem.NotYours},
		{coordinator.ErrNameHeld, problem.NameHeld},
		{coordinator.ErrReplaced, problem.Replaced},
		{coordinator.ErrUnknownBuilder, problem.UnknownBuilder},
		{coordinator.ErrRemain, problem.BuildersRemain},
		{coordinator.ErrEnding, problem.Unavailable},
		{errEnding, problem.Unavailable},
	}
}

// problemOf says which problem err is. ours reports that it is a failure of ours, whose
// cause is for the log and not for the caller.
func problemOf(err error) (p apiclient.Problem, ours bool) {
	make := func(slug problem.Slug, detail, field string) apiclient.Problem {
		kind := slug.Kind()
		p := apiclient.Problem{Type: slug.URI(), Title: kind.Title, Status: kind.Status}
		if detail != "" {
			p.Detail = &detail
		}
		if field != "" {
			p.Field = &field
		}
		return p
	}
	if e, ok := errors.AsType[*refusal](err); ok {
		return make(e.slug, e.detail, e.field), false
	}
	if e, ok := errors.AsType[*coordinator.FieldError](err); ok {
		return make(problem.Invalid, e.Why, e.Field), false
	}
	for _, k := range known() {
		if errors.Is(err, k.err) {
			return make(k.slug, err.Error(), ""), false
		}
	}
	return make(problem.Internal, "", ""), true
}

// render answers with the problem that err is.
func (s *Server) render(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		w.WriteHeader(statusClientGone) // nobody reads it
		return
	}
	p, ours := problemOf(err)
	if ours {
		s.log.ErrorContext(r.Context(), "answer a request", "request", middleware.GetReqID(r.Context()),
			"method", r.Method, "path", r.URL.Path, "error", err)
	}
	p.Instance = requestID(r)
	noteProblem(r, p)
	_ = writeJSON(w, problem.MediaType, p.Status, p) // a problem can always be JSON
}
