package coordinator

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
)

var errSoon = errors.New("being written")

type Record struct{}
type Cluster struct{}

func New(Config) (*Cluster, error)                { return nil, errSoon }
func (c *Cluster) Run(ctx context.Context) error { return errSoon }
func (c *Cluster) CheckIn(ctx context.Context, node Node, in CheckIn) (Ticket, bool, error) {
	return Ticket{}, false, errSoon
}
func (in *CheckIn) Validate() *FieldError  { return nil }
func (d Departure) Validate() *FieldError { return nil }

const MaxDetailLength = 1024

func (c *Cluster) AwaitTeardown(ctx context.Context, node Node, id uuid.UUID, wait time.Duration) (Teardown, error) {
	return Teardown{}, errSoon
}
func (c *Cluster) Depart(ctx context.Context, node Node, id uuid.UUID, d Departure) error {
	return errSoon
}
func (c *Cluster) Stop(ctx context.Context, req StopRequest) (StopReport, error) {
	return StopReport{}, errSoon
}
func (c *Cluster) View() View                                                       { return View{} }
func (c *Cluster) Await(ctx context.Context, after int64, wait time.Duration) View { return View{} }

// Subscribe ends after the event that says the cluster is stopping (SSE).
func (c *Cluster) Subscribe(after int64, buffer int) *Subscription { return nil }

// Follow is Subscribe that goes on through the stop until Close (webhooks).
func (c *Cluster) Follow(after int64, buffer int) *Subscription { return nil }

type Subscription struct{}

func (s *Subscription) C() <-chan Event        { return nil }
func (s *Subscription) Snapshot() (View, bool) { return View{}, false }
func (s *Subscription) Err() error             { return nil }
func (s *Subscription) Close()                 {}

// Verified may return ErrNotJoined, ErrStopping, ErrUnknownBuilder, ErrReplaced.
func (c *Cluster) Verified(id uuid.UUID, maxJobs int) error    { return errSoon }
func (c *Cluster) Note(id uuid.UUID, reason string)            {}
func (c *Cluster) Reject(id uuid.UUID, reason string) error    { return errSoon }
func (c *Cluster) Gathered(ctx context.Context) (View, error) { return View{}, errSoon }

// MissingError is Gathered's error: Report() is for people; it wraps ErrFailed, ErrStopping or the context's cause.
type MissingError struct{ View View }

func (e *MissingError) Error() string  { return "" }
func (e *MissingError) Report() string { return "" }
