package coordinator

import (
	"time"

	"github.com/google/uuid"
)

// View is a cluster as it was at one moment: a deep copy that its reader owns.
// Times are wall clock, UTC.
type View struct {
	ID       string
	Phase    Phase
	Reason   string
	Since    time.Time // when it entered the phase
	Revision int64     // grows with every change, also over restarts
	Event    int64     // number of the last event
	Quorum   int       // builders that must be ready before builds may start
	Lease    time.Duration
	Builders []Builder // in the order of [Config.Builders]
}

// Builder is one builder in a [View]. Of a builder that left or was lost, what it
// last was stays.
type Builder struct {
	Name    string // as configured
	State   State
	Reason  string // why it is in this state, or what the last store check said
	Since   time.Time
	ID      uuid.UUID // [uuid.Nil] until it checked in
	Node    Node      // zero until it checked in
	Offer   *Offer    // nil until it checked in
	Vitals  *Vitals   // nil until told
	MaxJobs int       // builds at a time that Nix may send it; 0 until it was ready

	JoinedAt time.Time // zero until it checked in
	ReadyAt  time.Time // zero until it was ready
	LeftAt   time.Time // zero unless it is departed or lost

	// Silent is how long it was not heard; 0 unless [State.Present] or [Lost].
	Silent time.Duration
	// Leaving says that it was told to leave: nothing may be dispatched to it,
	// whatever its state.
	Leaving bool
}
