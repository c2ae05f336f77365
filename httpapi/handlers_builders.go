package httpapi

import (
	"context"
	"errors"
	"math"
	"net/http"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/wire"
)

// defaultPoll is how long a poll that does not say so waits.
const defaultPoll = 15

func (s *Server) checkIn(w http.ResponseWriter, r *http.Request) (err error) {
	defer func() { s.metrics.checkedIn(err) }()
	if err := s.nodes.checkIn(callerOf(r)); err != nil {
		return err
	}
	if _, err := parseQuery(r); err != nil {
		return err
	}
	var body apiclient.CheckIn
	if err := s.decodeBody(w, r, &body); err != nil {
		return err
	}
	ticket, created, err := s.cluster.CheckIn(r.Context(), callerOf(r).node(), wire.CheckInOf(body))
	if err != nil {
		return err
	}
	quiet(r)
	answer, status := wire.Ticket(ticket), http.StatusOK
	if created {
		status = http.StatusCreated
	}
	if s.pathKey != "" {
		answer.PathKey = &s.pathKey
	}
	return writeJSON(w, mediaJSON, status, answer)
}

func (s *Server) listPaths(w http.ResponseWriter, r *http.Request) error {
	wait, err := s.waitOnly(w, r, defaultPoll, "after")
	if err != nil {
		return err
	}
	q, _ := parseQuery(r, "wait", "after")
	after, err := q.integer("after", 0, math.MaxInt64, 0)
	if err != nil {
		return err
	}
	quiet(r)
	page := apiclient.PathPage{Cursor: after, Peers: []apiclient.PathPeer{}, Paths: []apiclient.StorePath{}}
	if s.paths != nil {
		defer s.metrics.opened("paths")()
		page = s.paths(r.Context(), after, wait)
	}
	return writeJSON(w, mediaJSON, http.StatusOK, page)
}

func (s *Server) awaitTeardown(w http.ResponseWriter, r *http.Request) error {
	id, err := builderID(r)
	if err != nil {
		return err
	}
	wait, err := s.waitOnly(w, r, defaultPoll)
	if err != nil {
		return err
	}
	defer s.metrics.opened("teardown")()
	teardown, err := s.cluster.AwaitTeardown(r.Context(), callerOf(r).node(), id, wait)
	switch {
	case err == nil:
		quiet(r)
		return writeJSON(w, mediaJSON, http.StatusOK, wire.Teardown(teardown))
	case errors.Is(err, coordinator.ErrNotYet), isEnding(r.Context()):
		quiet(r)
		w.WriteHeader(http.StatusNoContent)
		return nil
	case r.Context().Err() != nil:
		quiet(r) // the builder went away; its lease will tell
	}
	return err
}

func (s *Server) depart(w http.ResponseWriter, r *http.Request) error {
	id, err := builderID(r)
	if err != nil {
		return err
	}
	if _, err := parseQuery(r); err != nil {
		return err
	}
	var body apiclient.Departure
	if err := s.decodeBody(w, r, &body); err != nil {
		return err
	}
	if err := s.cluster.Depart(r.Context(), callerOf(r).node(), id, wire.DepartureOf(body)); err != nil {
		return err
	}
	quiet(r)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// waitOnly reads the query of a call that takes a wait and neither more parameters nor a
// body, and gives the answer as much more time to be written.
func (s *Server) waitOnly(w http.ResponseWriter, r *http.Request, instead int64, more ...string) (time.Duration, error) {
	if err := noBody(w, r); err != nil {
		return 0, err
	}
	q, err := parseQuery(r, append(more, "wait")...)
	if err != nil {
		return 0, err
	}
	seconds, err := q.integer("wait", 0, MaxWait, instead)
	if err != nil {
		return 0, err
	}
	wait := time.Duration(seconds) * time.Second
	s.answerWithin(w, wait)
	return wait, nil
}

// answerWithin gives the answer to a call that waits the time to be written.
func (s *Server) answerWithin(w http.ResponseWriter, wait time.Duration) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(wait + s.limits.Write))
}

func isEnding(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errEnding) }
