package coordinator

import "errors"

// The ways in which a call can be refused or end without what it was made for.
// Errors that methods return wrap one of these and name the operation and the
// builder; tell them apart with [errors.Is].
var (
	// ErrWrongCluster: the check-in is meant for another cluster.
	ErrWrongCluster = errors.New("the check-in is for another cluster")
	// ErrNotExpected: the cluster's list of builders does not hold the name.
	ErrNotExpected = errors.New("the cluster does not expect a builder of this name")
	// ErrNotYours: the calling node may not act for this name or id.
	ErrNotYours = errors.New("the builder is not the caller's")
	// ErrNameHeld: another node, or a newer instance, holds the name and is there.
	ErrNameHeld = errors.New("the name is held")
	// ErrUnknownBuilder: no builder of this cluster has or had the id.
	ErrUnknownBuilder = errors.New("no builder has this id")
	// ErrReplaced: a newer instance or another node took the builder's place.
	ErrReplaced = errors.New("a newer check-in took the builder's place")
	// ErrNotYet: there is no teardown for the builder yet; poll again.
	ErrNotYet = errors.New("no teardown yet")
	// ErrNotJoined: the builder is not in a state that allows the change.
	ErrNotJoined = errors.New("the builder is not joined")
	// ErrStopping: the cluster is stopping or stopped.
	ErrStopping = errors.New("the cluster is stopping")
	// ErrFailed: the quorum was not met in time.
	ErrFailed = errors.New("the cluster failed")
	// ErrRemain: a stop ended with builders that did not leave.
	ErrRemain = errors.New("builders remain")
	// ErrEnding: the coordinator's process ends; the next one goes on with the drain.
	ErrEnding = errors.New("the coordinator's process is ending")
	// ErrSlow: a subscription was ended because its reader did not keep up.
	ErrSlow = errors.New("the reader of the events is too slow")
)

// FieldError says which member of a request has a value that can't be.
type FieldError struct {
	Field string // JSON Pointer (RFC 6901), such as "/offer/systems/0"
	Why   string // what is wrong and what is allowed
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Why }
