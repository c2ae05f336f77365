package httpapi

import (
	"errors"
	"math"
	"net/http"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/wire"
)

const (
	defaultStopWait = 30 // seconds that a stop waits for departures
	defaultQuery    = 50 // seconds that a blocking query waits for a change

	// hostTime is what a stop may need beyond its wait, for the coordinator's own files.
	hostTime = 2 * coordinator.DefaultDispatchTimeout
)

func (s *Server) stop(w http.ResponseWriter, r *http.Request) error {
	start := time.Now()
	if err := noBody(w, r); err != nil {
		return err
	}
	q, err := parseQuery(r, "wait", "drain", "builder...")
	if err != nil {
		return err
	}
	seconds, err := q.integer("wait", 0, MaxWait, defaultStopWait)
	if err != nil {
		return err
	}
	drainSeconds, err := q.integer("drain", 0, MaxDrain, 0)
	if err != nil {
		return err
	}
	names := q.values["builder"]
	if len(names) > MaxReleases {
		return &refusal{problem.Malformed, "too many names", "builder"}
	}
	wait, drain := time.Duration(seconds)*time.Second, time.Duration(drainSeconds)*time.Second
	s.answerWithin(w, drain+wait+hostTime)

	report, err := s.cluster.Stop(r.Context(), coordinator.StopRequest{
		By: callerOf(r).String(), Wait: wait, Drain: drain, Builders: names,
	})
	switch {
	case errors.Is(err, coordinator.ErrRemain):
		s.metrics.stopped(time.Since(start), "remain")
		return s.renderRemain(w, r, err, report)
	case err != nil:
		return err
	}
	s.metrics.stopped(time.Since(start), "left")
	return writeJSON(w, mediaJSON, http.StatusOK, wire.StopReport(report))
}

// renderRemain answers a stop that some builders did not follow: a problem, so that
// `curl -f` fails, with the whole report.
func (s *Server) renderRemain(w http.ResponseWriter, r *http.Request, err error, report coordinator.StopReport) error {
	p, _ := problemOf(err)
	full := apiclient.StopProblem{Report: wire.StopReport(report)}
	full.Type, full.Title, full.Status, full.Detail = p.Type, p.Title, p.Status, p.Detail
	full.Instance = requestID(r)
	noteProblem(r, p)
	return writeJSON(w, problem.MediaType, p.Status, full)
}

func (s *Server) readCluster(w http.ResponseWriter, r *http.Request) error {
	wait, err := s.waitOnly(w, r, defaultQuery, "after")
	if err != nil {
		return err
	}
	q, _ := parseQuery(r, "wait", "after")
	quiet(r)
	if !q.has("after") {
		return writeJSON(w, mediaJSON, http.StatusOK, wire.Cluster(s.cluster.View()))
	}
	after, err := q.integer("after", 0, math.MaxInt64, 0)
	if err != nil {
		return err
	}
	defer s.metrics.opened("cluster")()
	view := s.cluster.Await(r.Context(), after, wait)
	return writeJSON(w, mediaJSON, http.StatusOK, wire.Cluster(view))
}
