package builder

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

// errSilent says that the coordinator was not heard for two leases.
var errSilent = errors.New("the coordinator is silent")

// Leases and polls that a coordinator may ask for.
const (
	minLease = time.Second
	maxLease = time.Hour
)

// claim is a coordinator that took this builder. It belongs to Run's goroutine.
type claim struct {
	at     Candidate
	api    *apiclient.API
	offer  apiclient.Offer
	vitals *apiclient.Vitals // for the departure; nil: never measured
	ticket ticket
	// heard is when the last request was sent that the coordinator acknowledged.
	heard time.Time
	guard *guard // nil until Run has it, or for good
}

// ticket is an [apiclient.Ticket] that was checked.
type ticket struct {
	id          uuid.UUID
	phase       apiclient.Phase
	lease, poll time.Duration
	key         string // signs the paths that builders share; empty if they do not
}

// awake is how late this process may be at the end of a wait, each of which ends with the
// claim at the latest. If it is later, it was stopped meanwhile, or its machine was, and
// the silence was its own: the coordinator gets a lease more.
const awake = 500 * time.Millisecond

// until is when the coordinator has been silent for two leases.
func (c *claim) until() time.Time { return c.heard.Add(2 * c.ticket.lease) }

// grace is what an answer may take beyond the wait that was asked for.
func (c *claim) grace() time.Duration {
	return min(max(c.ticket.lease/9, time.Second), 10*time.Second)
}

// checkIn checks in with the coordinator, for the first time or again.
func (a *Agent) checkIn(ctx context.Context, c *claim, vitals *apiclient.Vitals) error {
	sent := time.Now()
	t, first, err := c.api.CheckIn(ctx, apiclient.CheckIn{
		Cluster: a.Cluster, Name: a.Name, Instance: a.instance, Offer: c.offer, Vitals: vitals,
	})
	if err != nil {
		return err
	}
	checked, err := a.check(t)
	if err != nil {
		return fmt.Errorf("check in with %s: %w", c.at.Base, err)
	}
	if !first && c.ticket.id != uuid.Nil && c.ticket.id != checked.id {
		return fmt.Errorf("check in with %s: renewed under another id, %s", c.at.Base, checked.id)
	}
	c.ticket, c.heard = checked, sent
	c.guard.heard(c)
	return nil
}

// check tells what is wrong with a ticket.
func (a *Agent) check(t apiclient.Ticket) (ticket, error) {
	lease, poll := seconds(t.LeaseSeconds), seconds(t.PollSeconds)
	switch {
	case t.Id == uuid.Nil:
		return ticket{}, errors.New("the ticket has no id")
	case t.Cluster != a.Cluster:
		return ticket{}, fmt.Errorf("the ticket is for another cluster, %s", clean(t.Cluster))
	case a.Label(t.Name) != a.Label(a.Name):
		return ticket{}, fmt.Errorf("the ticket is for another builder, %s", clean(t.Name))
	case !t.Phase.Valid():
		return ticket{}, fmt.Errorf("the ticket has a phase that there is not, %q", clean(string(t.Phase)))
	case lease < minLease || lease > maxLease:
		return ticket{}, fmt.Errorf("the ticket has a lease of %v seconds, not %v to %v", t.LeaseSeconds, minLease, maxLease)
	case poll <= 0 || poll > lease/2:
		return ticket{}, fmt.Errorf("the ticket has polls of %v seconds for a lease of %v", t.PollSeconds, lease)
	}
	checked := ticket{id: t.Id, phase: t.Phase, lease: lease, poll: poll}
	if t.PathKey != nil {
		checked.key = *t.PathKey
	}
	return checked, nil
}

// seconds returns s as a duration, or -1 if it can't be one.
func seconds(s float64) time.Duration {
	if !(s >= 0 && s <= math.MaxInt64/float64(time.Second)/2) { // NaN is neither
		return -1
	}
	return time.Duration(s * float64(time.Second))
}

// stay keeps the claim alive until the teardown comes, which it returns, or the
// claim is over.
func (a *Agent) stay(ctx context.Context, c *claim, vitals <-chan *apiclient.Vitals) (*apiclient.Teardown, error) {
	pauses := backoff{min: 100 * time.Millisecond, max: 2 * time.Second}
	unknown := false // the coordinator has forgotten us: check in before all else
	for failures := 0; ; {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if late := time.Since(c.until()); late > awake {
			a.say("this process did not run for a while; asking the coordinator once more")
			c.heard = time.Now().Add(-c.ticket.lease)
		} else if late >= 0 {
			return nil, fmt.Errorf("%w since %v", errSilent, time.Since(c.heard).Round(time.Second))
		}
		var teardown *apiclient.Teardown
		var err error
		select {
		case v := <-vitals:
			err = a.renew(ctx, c, v)
		default:
			if unknown {
				err = a.renew(ctx, c, nil)
			} else {
				teardown, err = a.poll(ctx, c)
			}
		}
		switch {
		case teardown != nil:
			return teardown, nil
		case err == nil:
			unknown, failures, pauses.next = false, 0, 0
			continue
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, problem.Replaced), errors.Is(err, problem.NameHeld):
			return nil, fmt.Errorf("%w: %w", ErrReplaced, err)
		case errors.Is(err, problem.UnknownBuilder):
			unknown = true
		}
		failures++
		a.Log.Warn("the coordinator did not acknowledge; trying again", "error", err, "silent", time.Since(c.heard).Round(time.Millisecond))
		if failures%3 == 0 {
			a.relocate(ctx, c)
		}
		bounded, cancel := context.WithDeadline(ctx, c.until())
		pauses.wait(bounded) // the head of the loop sees what ended it
		cancel()
	}
}

// renew repeats the check-in.
func (a *Agent) renew(ctx context.Context, c *claim, v *apiclient.Vitals) error {
	ctx, cancel := context.WithDeadline(ctx, earlier(time.Now().Add(c.grace()), c.until()))
	defer cancel()
	return a.checkIn(ctx, c, v)
}

// minPace keeps a coordinator that answers polls early from being asked without
// pause.
const minPace = 250 * time.Millisecond

// poll waits for the teardown once; it is nil if there is none yet.
func (a *Agent) poll(ctx context.Context, c *claim) (*apiclient.Teardown, error) {
	wait := max(c.ticket.poll, time.Second) // the API counts whole seconds
	sent := time.Now()
	// A coordinator that was away for almost two leases must be able to answer in time.
	wait = max(min(wait, c.until().Sub(sent)-c.grace()), 0)
	bounded, cancel := context.WithDeadline(ctx, earlier(sent.Add(wait+c.grace()), c.until()))
	defer cancel()
	teardown, err := c.api.AwaitTeardown(bounded, c.ticket.id, wait)
	if err != nil {
		return nil, err
	}
	if teardown != nil && !teardown.Phase.Valid() {
		return nil, fmt.Errorf("a teardown with a phase that there is not, %q", clean(string(teardown.Phase)))
	}
	c.heard = sent
	c.guard.heard(c)
	if teardown == nil {
		sleep(bounded, minPace-time.Since(sent))
	}
	return teardown, nil
}

// relocate looks whether our cluster's coordinator is somewhere else now. Only an
// address can have changed: the cluster is still ours.
func (a *Agent) relocate(ctx context.Context, c *claim) {
	ctx, cancel := context.WithDeadline(ctx, earlier(time.Now().Add(askTime), c.until()))
	defer cancel()
	err := a.ask(ctx, func(an answer) (more bool, err error) {
		if an.err != nil {
			return true, nil
		}
		if an.Base != c.at.Base {
			a.say("the coordinator is now %s at %s", clean(an.Name), an.Base)
			c.at, c.api = an.Candidate, an.api
		}
		return false, nil
	})
	if err != nil {
		a.Log.Debug("look for the coordinator again", "error", err)
	}
}

// depart says that the builder leaves, for as long as within. It gives up early
// when the coordinator has an answer that won't change.
func (a *Agent) depart(ctx context.Context, c *claim, within time.Duration, reason apiclient.DepartureReason, detail string) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	d := apiclient.Departure{Reason: reason, Vitals: c.vitals}
	if detail = clean(detail); detail != "" {
		d.Detail = &detail
	}
	pauses := backoff{min: 50 * time.Millisecond, max: 500 * time.Millisecond}
	for {
		try, done := context.WithTimeout(ctx, min(max(within/2, 500*time.Millisecond), askTime))
		err := c.api.Depart(try, c.ticket.id, d)
		done()
		if err == nil {
			return nil
		}
		if p, ok := errors.AsType[*apiclient.ProblemError](err); ok && p.Status < 500 && p.Slug != "" && p.Slug != problem.TooManyRequests {
			return err
		}
		if pauses.wait(ctx) != nil {
			return err
		}
	}
}
