package apiclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
)

const (
	// answerTime is what a call may take beyond the wait that it asks for.
	answerTime = 10 * time.Second

	// stopTime is the same for a stop, which the coordinator may have to put its own host's
	// files in order for.
	stopTime = 35 * time.Second

	// maxWait is the longest wait that the contract lets a caller ask for.
	maxWait = 300 * time.Second
	// maxDrain is the longest time that it lets builds have to end.
	maxDrain = 6 * time.Hour

	// maxAnswer bounds what is read of an answer: a cluster of 256 builders that all
	// offer as much as the contract allows takes about 6 MiB.
	maxAnswer = 16 << 20
)

// API calls one coordinator. It may be used by many goroutines at once.
//
// Every method ends within ten seconds, Stop within 35, plus the wait that it was given, and
// sooner with its context. An answer that is a problem is returned as a *ProblemError. Nothing is
// tried again and no redirect is followed: what to do about a failure is the caller's.
type API struct {
	gen  *Client
	base string
}

// New returns the API of the coordinator at baseURL, which ends in /v1, such as
// http://100.64.0.1:8378/v1. If hc is nil, a plain client is used; its Timeout should be
// zero, for a poll may take longer than any fixed time.
func New(baseURL string, hc *http.Client) (*API, error) {
	u, err := url.Parse(baseURL)
	if err != nil {
		return nil, fmt.Errorf("coordinator's base URL: %w", err)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("coordinator's base URL %q: want http://HOST:PORT/v1", u.Redacted())
	}
	own := http.Client{}
	if hc != nil {
		own = *hc
	}
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	gen, err := NewClient(strings.TrimSuffix(baseURL, "/"), WithHTTPClient(&own))
	if err != nil {
		return nil, fmt.Errorf("coordinator's base URL %q: %w", u.Redacted(), err)
	}
	return &API{gen: gen, base: u.Redacted()}, nil
}

// CheckIn checks in or renews a check-in. first says that the coordinator had not seen
// this instance before.
func (a *API) CheckIn(ctx context.Context, c CheckIn) (t Ticket, first bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	res, err := a.gen.CheckIn(ctx, c)
	status, err := a.answer(res, err, &t)
	if err != nil {
		return Ticket{}, false, fmt.Errorf("check in with %s: %w", a.base, err)
	}
	return t, status == http.StatusCreated, nil
}

// AwaitTeardown waits until builder id must leave and says why. When nothing happened
// within wait, at most 300 s and counted in whole seconds, the teardown is nil: poll again.
func (a *API) AwaitTeardown(ctx context.Context, id uuid.UUID, wait time.Duration) (*Teardown, error) {
	wait = wholeSeconds(wait)
	ctx, cancel := context.WithTimeout(ctx, wait+answerTime)
	defer cancel()
	res, err := a.gen.AwaitTeardown(ctx, id, &AwaitTeardownParams{Wait: new(int(wait / time.Second))})
	var t Teardown
	status, err := a.answer(res, err, &t)
	switch {
	case err != nil:
		return nil, fmt.Errorf("wait for teardown at %s: %w", a.base, err)
	case status == http.StatusNoContent:
		return nil, nil
	}
	return &t, nil
}

// Depart says that builder id leaves, and why.
func (a *API) Depart(ctx context.Context, id uuid.UUID, d Departure) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	res, err := a.gen.Depart(ctx, id, d)
	if _, err := a.answer(res, err, nil); err != nil {
		return fmt.Errorf("depart from %s: %w", a.base, err)
	}
	return nil
}

// Stop releases all builders and stops the cluster or, given names, releases only those.
// It returns when they have left or wait, at most 300 s, has passed. When some remain the
// error is problem.BuildersRemain and the report is there all the same.
func (a *API) Stop(ctx context.Context, wait time.Duration, names ...string) (StopReport, error) {
	return a.Drain(ctx, 0, wait, names...)
}

// Drain is Stop, but builds that run get so long to end first, 6 h at most.
func (a *API) Drain(ctx context.Context, drain, wait time.Duration, names ...string) (StopReport, error) {
	wait = wholeSeconds(wait)
	drain = min(max(drain, 0), maxDrain).Truncate(time.Second)
	ctx, cancel := context.WithTimeout(ctx, drain+wait+stopTime)
	defer cancel()
	params := &StopNixBuildersParams{Wait: new(int(wait / time.Second))}
	if drain > 0 {
		params.Drain = new(int(drain / time.Second))
	}
	if len(names) > 0 {
		params.Builder = &names
	}
	res, err := a.gen.StopNixBuilders(ctx, params)
	var report StopReport
	_, err = a.answer(res, err, &report)
	if err != nil {
		if p, ok := errors.AsType[*ProblemError](err); ok && p.Report != nil {
			report = *p.Report
		}
		return report, fmt.Errorf("stop the builders of %s: %w", a.base, err)
	}
	return report, nil
}

// Cluster returns the cluster as it is.
func (a *API) Cluster(ctx context.Context) (Cluster, error) {
	return a.cluster(ctx, &GetClusterParams{}, 0)
}

// AwaitCluster returns the cluster as soon as its revision is newer than after, and
// unchanged when wait, at most 300 s, has passed or the cluster stops.
func (a *API) AwaitCluster(ctx context.Context, after int64, wait time.Duration) (Cluster, error) {
	wait = wholeSeconds(wait)
	return a.cluster(ctx, &GetClusterParams{After: &after, Wait: new(int(wait / time.Second))}, wait)
}

func (a *API) cluster(ctx context.Context, params *GetClusterParams, wait time.Duration) (Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+answerTime)
	defer cancel()
	res, err := a.gen.GetCluster(ctx, params)
	var c Cluster
	if _, err := a.answer(res, err, &c); err != nil {
		return Cluster{}, fmt.Errorf("read the cluster at %s: %w", a.base, err)
	}
	return c, nil
}

// Paths returns what has changed of the paths that builders share since a cursor: as soon as
// something has, and what there is when wait, at most 300 s, has passed.
func (a *API) Paths(ctx context.Context, after int64, wait time.Duration) (PathPage, error) {
	wait = wholeSeconds(wait)
	ctx, cancel := context.WithTimeout(ctx, wait+answerTime)
	defer cancel()
	res, err := a.gen.ListPaths(ctx, &ListPathsParams{After: &after, Wait: new(int(wait / time.Second))})
	var p PathPage
	if _, err := a.answer(res, err, &p); err != nil {
		return PathPage{}, fmt.Errorf("read the paths at %s: %w", a.base, err)
	}
	return p, nil
}

// Health returns nil when the coordinator's server answers, whoever asks.
func (a *API) Health(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	res, err := a.gen.GetHealth(ctx)
	var h Health
	_, err = a.answer(res, err, &h)
	if err == nil && h.Status != Ok {
		err = fmt.Errorf("status is %q", h.Status)
	}
	if err != nil {
		return fmt.Errorf("ask for the health of %s: %w", a.base, err)
	}
	return nil
}

// answer reads the body of res into v, closes it, and returns its status. A problem
// becomes a *ProblemError.
func (a *API) answer(res *http.Response, err error, v any) (status int, _ error) {
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err // its method and URL say what our own words say better
		}
		return 0, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return res.StatusCode, fmt.Errorf("read the answer: %w", err)
	case len(body) > maxAnswer:
		return res.StatusCode, fmt.Errorf("the answer is over %d MiB", maxAnswer>>20)
	case res.StatusCode >= 300:
		return res.StatusCode, problemOf(res, body)
	case res.StatusCode == http.StatusNoContent || v == nil:
		return res.StatusCode, nil
	}
	if kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); kind != "application/json" {
		return res.StatusCode, fmt.Errorf("the answer is %q, not JSON: is this a coordinator?", kind)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return res.StatusCode, fmt.Errorf("understand the answer: %w", err)
	}
	return res.StatusCode, nil
}

// wholeSeconds bounds wait to what the contract allows.
func wholeSeconds(wait time.Duration) time.Duration {
	return min(max(wait, 0), maxWait).Truncate(time.Second)
}
