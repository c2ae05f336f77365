package builder

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

// UnclaimedError says that no coordinator claimed the builder in time.
type UnclaimedError struct {
	Cluster string
	Name    string
	Waited  time.Duration
	// Seen is what came of each coordinator that was seen, by its name
	// and address.
	Seen map[string]string
	// Err is why coordinators could not be looked for, if they could not.
	Err error
}

func (e *UnclaimedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "nobody claimed builder %s of cluster %s within %v", e.Name, e.Cluster, e.Waited)
	switch {
	case len(e.Seen) > 0:
		for _, name := range slices.Sorted(maps.Keys(e.Seen)) {
			fmt.Fprintf(&b, "\n  %s: %s", name, e.Seen[name])
		}
		b.WriteString("\nIs this builder's name in the coordinator's list of builders? If a coordinator did not answer, does the tailnet's policy let builders reach it (\"grants\")? A re-run of failed jobs alone has a new run attempt: re-run all jobs.")
	case e.Err != nil:
		fmt.Fprintf(&b, ": %v", e.Err)
	default:
		b.WriteString(": no coordinator was seen on the tailnet. Did the coordinator's job start? Does its node have the coordinator tag, and does the tailnet's policy let builders reach it?")
	}
	return b.String()
}

func (e *UnclaimedError) Unwrap() error { return e.Err }

// fatalError is a failure that neither time nor another coordinator mends.
type fatalError struct{ error }

func (e fatalError) Unwrap() error { return e.error }

func unmeasured(err error) error {
	return fatalError{fmt.Errorf("measure what this host offers: %w", err)}
}

// facts are what a first check-in tells of this host.
type facts struct {
	offer  apiclient.Offer
	vitals *apiclient.Vitals // nil: could not be measured
}

// look finds the coordinator that claims this builder and checks in with it.
func (a *Agent) look(ctx context.Context) (*claim, error) {
	begin := time.Now()
	timeout := errors.New("timeout")
	looking, cancel := context.WithTimeoutCause(ctx, a.Timeout, timeout)
	defer cancel()

	// Measuring takes seconds in which coordinators can be asked.
	host := later(func() (facts, error) {
		offer, err := a.Offer(looking)
		if err != nil {
			return facts{}, err
		}
		vitals := a.measure(looking)
		if vitals != nil {
			a.tell(*vitals)
		}
		return facts{offer, vitals}, nil
	})
	defer func() { cancel(); <-host.done }()

	unclaimed := &UnclaimedError{Cluster: a.Cluster, Name: a.Name, Seen: map[string]string{}}
	pauses := backoff{min: 200 * time.Millisecond, max: 3 * time.Second}
	for {
		c, err := a.round(looking, host, unclaimed.Seen)
		if c == nil && err == nil && looking.Err() == nil && host.failed() {
			_, why := host.wait(looking) // nobody has come yet, but nobody could be answered
			err = unmeasured(why)
		}
		var fatal fatalError
		switch {
		case c != nil:
			return c, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.As(err, &fatal):
			return nil, fmt.Errorf("builder %s: %w", a.Name, fatal.error)
		}
		if looking.Err() == nil || err == nil {
			unclaimed.Err = err
		}
		if err != nil {
			a.Log.Debug("look for the coordinator", "error", err)
		}
		if err := pauses.wait(looking); err != nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			unclaimed.Waited = time.Since(begin).Round(time.Second)
			return nil, unclaimed
		}
	}
}

// round asks everyone once and checks in with the first that is ours. A cluster
// that is over claims us only if no other does. It notes in seen what came of
// each.
func (a *Agent) round(ctx context.Context, host *promise[facts], seen map[string]string) (*claim, error) {
	var over []answer
	var claimed *claim
	note := func(an answer, err error) {
		if ctx.Err() == nil { // else the end of time would hide what came before
			seen[fmt.Sprintf("%s (%s)", clean(an.Name), an.Base)] = clean(err.Error())
		}
	}
	try := func(an answer) error {
		f, err := host.wait(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return unmeasured(err)
		}
		c := &claim{at: an.Candidate, api: an.api, offer: f.offer, vitals: f.vitals}
		err = a.checkIn(ctx, c, f.vitals)
		if err == nil {
			claimed = c
			return nil
		}
		note(an, err)
		if unacceptable(err) {
			return fatalError{err}
		}
		a.Log.Info("a coordinator did not take the check-in", "coordinator", an.Name, "error", err)
		return nil
	}
	err := a.ask(ctx, func(an answer) (more bool, err error) {
		if an.err != nil {
			note(an, an.err)
			return true, nil
		}
		if an.cluster.Phase != apiclient.PhaseGathering && an.cluster.Phase != apiclient.PhaseReady {
			over = append(over, an)
			return true, nil
		}
		err = try(an)
		return claimed == nil, err
	})
	for _, an := range over {
		if err != nil || claimed != nil {
			break
		}
		err = try(an)
	}
	return claimed, err
}

// answer is what came of asking one candidate. Without err it is ours.
type answer struct {
	Candidate
	api     *apiclient.API
	cluster apiclient.Cluster
	err     error
}

// ask asks all candidates for their cluster, many at a time, and hands each
// answer to take as it comes, until take wants no more.
func (a *Agent) ask(ctx context.Context, take func(answer) (more bool, err error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	listing, done := context.WithTimeout(ctx, askTime)
	candidates, err := a.Coordinators(listing)
	done()
	if err != nil {
		return fmt.Errorf("look for coordinators: %w", err)
	}
	answers := make(chan answer, len(candidates))
	var asking errgroup.Group
	asking.SetLimit(askAtOnce)
	finished := make(chan struct{})
	go func() { // ends with the last question, each of which ends with ctx
		defer close(finished)
		for _, c := range candidates {
			asking.Go(func() error {
				answers <- a.askOne(ctx, c)
				return nil
			})
		}
		asking.Wait()
		close(answers)
	}()
	defer func() { cancel(); <-finished }()
	for an := range answers {
		if more, err := take(an); err != nil || !more {
			return err
		}
	}
	return nil
}

func (a *Agent) askOne(ctx context.Context, c Candidate) answer {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	an := answer{Candidate: c}
	if an.api, an.err = apiclient.New(c.Base, &http.Client{Transport: a.Transport}); an.err != nil {
		return an
	}
	if an.cluster, an.err = an.api.Cluster(ctx); an.err != nil {
		return an
	}
	an.err = a.ours(an.cluster)
	return an
}

// ours tells why a cluster is not the one that this builder belongs to.
func (a *Agent) ours(c apiclient.Cluster) error {
	if c.Id != a.Cluster {
		return fmt.Errorf("it coordinates another cluster, %s", clean(c.Id))
	}
	if !c.Phase.Valid() {
		return fmt.Errorf("it answers with a phase that there is not, %q", clean(string(c.Phase)))
	}
	label := a.Label(a.Name)
	if !slices.ContainsFunc(c.Builders, func(b apiclient.Builder) bool { return a.Label(b.Name) == label }) {
		return fmt.Errorf("it does not expect a builder named %s", a.Name)
	}
	return nil
}

// unacceptable reports whether a coordinator that is ours can't understand what
// this builder says: it would say the same again.
func unacceptable(err error) bool {
	for _, slug := range []problem.Slug{problem.Malformed, problem.Invalid, problem.TooLarge, problem.UnsupportedMediaType} {
		if errors.Is(err, slug) {
			return true
		}
	}
	return false
}
