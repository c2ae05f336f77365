package coordinator

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// Gathered waits until the cluster is ready and returns it. When it fails, stops, or
// ctx ends first, the error is a [*MissingError] that reports who is missing.
func (c *Cluster) Gathered(ctx context.Context) (View, error) {
	for {
		c.mu.Lock()
		phase, changed := c.phase, c.changedLocked()
		c.mu.Unlock()
		var cause error
		switch phase {
		case Ready:
			return c.View(), nil
		case Failed:
			cause = ErrFailed
		case Stopping, Stopped:
			cause = ErrStopping
		case Gathering:
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				cause = context.Cause(ctx)
			}
		}
		v := c.View()
		return v, newMissingError(v, time.Now(), cause)
	}
}

// MissingError says why a cluster is not ready and who is missing. It wraps
// [ErrFailed], [ErrStopping], or the cause of the context's end.
type MissingError struct {
	Cluster string
	Phase   Phase
	Reason  string // of the phase
	Ready   int    // builders that are ready
	Quorum  int    // builders that are needed
	Missing []Missing

	cause error
}

// Missing is one builder that is not ready.
type Missing struct {
	Name   string
	State  State
	For    time.Duration // how long it has been in the state
	Reason string        // the last that is known of it
	Check  string        // what a person should look at
}

func newMissingError(v View, now time.Time, cause error) *MissingError {
	e := &MissingError{Cluster: v.ID, Phase: v.Phase, Reason: v.Reason, Quorum: v.Quorum, cause: cause}
	for _, b := range v.Builders {
		if b.State == StateReady {
			e.Ready++
			continue
		}
		e.Missing = append(e.Missing, Missing{
			Name: b.Name, State: b.State, For: max(0, now.Sub(b.Since)),
			Reason: b.Reason, Check: whatToCheck(b),
		})
	}
	return e
}

func whatToCheck(b Builder) string {
	switch b.State {
	case Expected:
		return "did its job start, and does its log show this cluster's id? Does the tailnet policy let its tag reach the coordinator's port?"
	case Joined:
		return "its store does not answer yet: does the tailnet policy let the coordinator's tag in over SSH as root, and does its Nix daemon run?"
	case Lost:
		return "does its job still run, and is its node still on the tailnet? It may come back by itself."
	case Departed:
		return "its job ended before the cluster was ready: look at the end of its log."
	case Rejected:
		return "it can't be used as it is: mend what the reason says and run its job again."
	}
	return ""
}

// Error is one line.
func (e *MissingError) Error() string {
	return fmt.Sprintf("cluster %s is not ready: %d of %d builders that are needed are ready: %v", e.Cluster, e.Ready, e.Quorum, e.cause)
}

// Unwrap returns why the wait ended.
func (e *MissingError) Unwrap() error { return e.cause }

// Report is the whole story, for a person: several lines, the last one ended.
func (e *MissingError) Report() string {
	var b strings.Builder
	if e.Phase == Failed { // its reason has the numbers
		fmt.Fprintf(&b, "Cluster %s failed: %s.\n", e.Cluster, e.Reason)
	} else {
		fmt.Fprintf(&b, "Cluster %s is %s (%s): %d builders are ready, %d needed.\n", e.Cluster, e.Phase, e.Reason, e.Ready, e.Quorum)
	}
	b.WriteString("\nNot ready:\n")
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	for _, m := range e.Missing {
		fmt.Fprintf(w, "  %s\t%s for %v\t%s\n", m.Name, m.State, m.For.Round(time.Second), m.Reason)
	}
	w.Flush() // a strings.Builder takes everything

	// The same advice for many builders is worth one line.
	b.WriteString("\nCheck:\n")
	seen := make(map[string]bool)
	for _, m := range e.Missing {
		if !seen[m.Check] {
			seen[m.Check] = true
			fmt.Fprintf(&b, "  %s: %s\n", m.State, m.Check)
		}
	}
	return b.String()
}
