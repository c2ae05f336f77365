package coordinator

import (
	"context"
	"fmt"

	"github.com/google/uuid"
)

// Departure is a builder's word that it leaves, given before it leaves the tailnet.
type Departure struct {
	Reason DepartureReason
	Detail string  // at most [MaxDetailLength] characters
	Vitals *Vitals // the last of the builder; nil: not told
}

// DepartureReason is why a builder leaves.
type DepartureReason string

// The reasons for which builders leave.
const (
	DepartTeardown  DepartureReason = "teardown"  // it was told to
	DepartTimeout   DepartureReason = "timeout"   // its coordinator fell silent
	DepartCancelled DepartureReason = "cancelled" // its job was cancelled
	DepartFailed    DepartureReason = "failed"    // something went wrong
)

// departReasons are the reasons as sentences of the builder.
var departReasons = map[DepartureReason]string{
	DepartTeardown:  "left as it was told to",
	DepartTimeout:   "left: its coordinator fell silent",
	DepartCancelled: "left: its job was cancelled",
	DepartFailed:    "left: something went wrong on it",
}

// Depart notes that the builder with the id leaves. Repeating it changes nothing.
//
// Errors: [*FieldError], [ErrUnknownBuilder], [ErrReplaced], [ErrNotYours]. The
// departure is saved when Depart returns.
func (c *Cluster) Depart(ctx context.Context, node Node, id uuid.UUID, d Departure) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("depart: %w", err)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("depart builder %s: %w", id, context.Cause(ctx))
	}
	c.mu.Lock()
	s, err := c.findLocked(node, id)
	if err != nil {
		c.mu.Unlock()
		return fmt.Errorf("depart builder %s: %w", id, err)
	}
	if s.State != Departed {
		reason := departReasons[d.Reason]
		if detail := oneLine(d.Detail); detail != "" {
			reason += " (" + detail + ")"
		}
		s.learnVitals(d.Vitals)
		c.mustMoveLocked(s, Departed, reason)
		s.endPollLocked()
	}
	c.mu.Unlock()
	c.commit() // as in CheckIn
	return nil
}
