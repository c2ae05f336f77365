package coordinator

import "time"

// StopRequest asks for the release of builders.
type StopRequest struct {
	By string // who asks, for the reason that builders and readers see
	// Wait is how long to wait for departures at most; none if zero or less.
	Wait time.Duration
	// Builders are the names to release; the cluster then goes on. If empty, the
	// whole cluster stops.
	Builders []string
}

// StopReport is what came of a stop.
type StopReport struct {
	Phase     Phase
	StoppedAt time.Time     // when the cluster, or the first of the named builders, was told
	Took      time.Duration // how long the call took
	Builders  []Released    // all, or those named, in the order of [Config.Builders]
	// Faults are what went wrong on the coordinator's own host: machines that could
	// not be emptied, files not restored, state not saved. They never hold a stop up.
	Faults []string
}

// Released is one builder in a [StopReport].
type Released struct {
	Name   string
	State  State
	Reason string
	Left   bool // it is not there any more, or never was
	// After is the time from the stop to its departure; nil unless it left because
	// of the stop.
	After *time.Duration
}
