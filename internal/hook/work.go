package hook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
)

// errAway says that there was no scheduler for too long.
var errAway = errors.New("no scheduler")

// work builds on one builder after the other, until it is built or it is known that it can't.
func (h *hook) work(ctx context.Context) (Exit, error) {
	var from, reason string // the last builder, and why it is not built there
	var said []string       // what made it fail, one text a builder, without the builders' names
	h.seat.tell(scheduler.Message{Op: scheduler.OpQueue, Inputs: h.inputs})
	for {
		run, err := h.wait(ctx)
		switch {
		case errors.Is(err, errAway):
			return h.alone(ctx)
		case ctx.Err() != nil:
			h.seat.tell(scheduler.Message{Op: scheduler.OpDone, Outcome: scheduler.OutcomeGaveUp})
			return Exit{}, context.Cause(ctx)
		case err != nil:
			return Exit{}, fmt.Errorf("build '%s': %w", h.request.derivation, err)
		}
		h.announce(run, from, reason)
		h.running = run.Machine
		began := time.Now()
		a, code, err := h.try(ctx, run)
		if err != nil {
			return Exit{}, err
		}
		exit, over, why := h.settle(ctx, a, code, began, said)
		if over {
			if a.end.gone {
				return exit, context.Cause(ctx)
			}
			return exit, nil
		}
		said = append(said, a.signature())
		from, reason = run.Machine, why
		h.move(run.Machine, reason)
	}
}

// settle decides what an attempt that has ended comes to. If it is over, the scheduler and
// the user were told; if not, reason says why it goes on elsewhere.
func (h *hook) settle(ctx context.Context, a *attempt, code int, began time.Time, said []string) (exit Exit, over bool, reason string) {
	finish := func(outcome string, code int) (Exit, bool, string) {
		if outcome == scheduler.OutcomeBuilt {
			// What went wrong was put right: a path that could not be fetched was copied.
			for _, text := range a.errors {
				h.out.say(levelTalkative, "%s", text)
			}
			a.held = nil
		}
		a.flush()
		h.seat.tell(scheduler.Message{Op: scheduler.OpDone, Outcome: outcome, Reason: summary(a.cause())})
		return Exit{Code: code}, true, ""
	}
	built := code == 0 && a.stage == building
	switch {
	case built:
		return finish(scheduler.OutcomeBuilt, 0)
	case a.end.gone:
		return finish(scheduler.OutcomeGaveUp, 1)
	case a.end.timedOut != "":
		a.held = nil
		h.out.say(levelError, "error: %s", a.end.timedOut)
		return finish(scheduler.OutcomeFailed, exitTimedOut)
	case a.end.lost != "":
		reason = a.end.lost
	case a.end.refused:
		reason = "Nix finds no free slot there"
		if text := a.cause(); text != "" {
			reason = summary(text)
		}
	case len(a.errors) == 0:
		reason = fmt.Sprintf("Nix' build hook ended without a word, with exit code %d", code)
	default:
		text := a.cause()
		var condition scheduler.Condition
		if b := diagnose(text); b != onVerdict && b != onMachine {
			condition = h.condition(ctx, a, began)
		}
		var final bool
		if final, reason = judge(text, condition, slices.Contains(said, a.signature())); final {
			return finish(scheduler.OutcomeFailed, max(code, 1))
		}
		reason = cmp.Or(a.end.lost, reason)
	}
	if text := h.hopeless(a, began); text != "" {
		a.flush()
		h.out.say(levelError, "error: '%s' %s; the last time on %s: %s", h.request.derivation, text, a.machine, reason)
		return finish(scheduler.OutcomeFailed, max(code, 1))
	}
	for _, text := range a.errors {
		h.out.say(levelDebug, "on %s: %s", a.machine, text)
	}
	return Exit{}, false, reason
}

// hopeless notes an attempt that has failed for no fault of the build. If none is to follow,
// it says why.
func (h *hook) hopeless(a *attempt, began time.Time) string {
	if a.stage == building {
		h.starts++
		h.vain = vain{}
		if h.starts >= maxTries {
			return fmt.Sprintf("was begun %d times and never finished", h.starts)
		}
		return ""
	}
	if h.vain.tries++; h.vain.tries == 1 {
		h.vain.since = began
	}
	if long := time.Since(h.vain.since); h.vain.tries >= maxTries && long >= cmp.Or(h.Hope, vainLimit) {
		return fmt.Sprintf("was sent to builders %d times in %v, and none began", h.vain.tries, brief(long))
	}
	return ""
}

// signature is an attempt's failure in a form that is the same on each builder.
func (a *attempt) signature() string {
	return strings.NewReplacer(string(a.uri), "", a.machine, "").Replace(a.cause())
}

// move gives the slot back and queues for another.
func (h *hook) move(from, reason string) {
	h.tries++
	h.running = ""
	if !slices.Contains(h.avoid, from) {
		h.avoid = append(h.avoid, from)
	}
	h.seat.tell(scheduler.Message{Op: scheduler.OpDone, Outcome: scheduler.OutcomeMoved, Reason: reason})
	h.seat.tell(scheduler.Message{Op: scheduler.OpQueue, Inputs: h.inputs, Avoid: h.avoid, Tries: h.tries})
}

// announce tells the user what Nix could not: where it is built in the end.
func (h *hook) announce(run scheduler.Message, from, reason string) {
	switch {
	case from == run.Machine:
		h.out.say(levelWarn, "warning: '%s' begins again on %s: %s", h.request.derivation, from, reason)
	case from != "":
		h.out.say(levelWarn, "warning: '%s' moves from %s to %s: %s", h.request.derivation, from, run.Machine, reason)
	case run.Machine != h.promise:
		h.out.say(levelInfo, "'%s' builds on '%s' after waiting %v", h.request.derivation, run.Machine, brief(run.Waited))
	}
}

// brief is a time as exact as a person wants it.
func brief(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(time.Second)
}

// wait waits for a slot.
func (h *hook) wait(ctx context.Context) (scheduler.Message, error) {
	tick := time.NewTicker(time.Second) // to see how long there is no scheduler
	defer tick.Stop()
	for {
		select {
		case m, more := <-h.seat.messages():
			switch {
			case !more:
				h.seat.lose()
			case m.Op == scheduler.OpRun:
				return m, nil
			case m.Op == scheduler.OpFail:
				return m, errors.New(m.Reason)
			}
		case c := <-h.seat.found:
			h.seat.take(c)
		case <-tick.C:
			if h.seat.client == nil && time.Since(h.seat.away) > cmp.Or(h.Patience, awayLimit) {
				return scheduler.Message{}, errAway
			}
		case <-ctx.Done():
			return scheduler.Message{}, context.Cause(ctx)
		}
	}
}

// condition asks what a builder's host went through since an attempt began there.
func (h *hook) condition(ctx context.Context, a *attempt, since time.Time) scheduler.Condition {
	ctx, cancel := context.WithTimeout(ctx, conditionLimit)
	defer cancel()
	h.seat.tell(scheduler.Message{Op: scheduler.OpAsk, Machine: a.machine, Since: since})
	for {
		if h.seat.client == nil {
			return scheduler.Condition{Unknown: "there is no scheduler"}
		}
		select {
		case m, more := <-h.seat.messages():
			switch {
			case !more:
				h.seat.lose()
			case m.Op == scheduler.OpLost && m.Machine == a.machine:
				a.end.lost = m.Reason
				return scheduler.Condition{Leaving: true}
			case m.Op == scheduler.OpCondition && m.Machine == a.machine && m.Condition != nil:
				return *m.Condition
			}
		case <-ctx.Done():
			return scheduler.Condition{Unknown: "the scheduler did not say in time"}
		}
	}
}
