package coordinator

// The tables of allowed transitions, for the test that walks through them.
var (
	Transitions      = transitions
	PhaseTransitions = phaseTransitions
)
