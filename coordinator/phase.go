package coordinator

import "fmt"

// Phase is where a cluster is in its life. The zero Phase is [Gathering].
type Phase int

// The phases, in the order in which a cluster can pass them.
const (
	Gathering Phase = iota // waits for its quorum
	Ready                  // the quorum was met: builds may start
	Failed                 // the quorum was not met in time
	Stopping               // every builder is told to leave
	Stopped                // nobody is there any more
)

var phaseWords = [...]string{"gathering", "ready", "failed", "stopping", "stopped"}

// String is the phase's word on the wire.
func (p Phase) String() string { return word(phaseWords[:], int(p), "phase") }

// MarshalText makes [Phase.String] the phase's form in JSON.
func (p Phase) MarshalText() ([]byte, error) { return marshalWord(phaseWords[:], int(p), "phase") }

// UnmarshalText accepts what [Phase.String] gives.
func (p *Phase) UnmarshalText(text []byte) error {
	i, err := parseWord(phaseWords[:], string(text), "phase")
	*p = Phase(i)
	return err
}

// State is where a builder is in its life. The zero State is [Expected].
type State int

// The states of a builder.
const (
	Expected   State = iota // never checked in
	Joined                  // checked in, its store not shown to answer yet
	StateReady              // its store answered: Nix may use it
	Cordoned                // as StateReady, but short of something: it gets no new builds
	Draining                // its builds may end, it gets no new ones, then it is released
	Lost                    // silent for longer than the lease
	Departed                // it said that it leaves
	Rejected                // found unusable, and told to leave
)

var stateWords = [...]string{"expected", "joined", "ready", "cordoned", "draining", "lost", "departed", "rejected"}

// String is the state's word on the wire.
func (s State) String() string { return word(stateWords[:], int(s), "state") }

// MarshalText makes [State.String] the state's form in JSON.
func (s State) MarshalText() ([]byte, error) { return marshalWord(stateWords[:], int(s), "state") }

// UnmarshalText accepts what [State.String] gives.
func (s *State) UnmarshalText(text []byte) error {
	i, err := parseWord(stateWords[:], string(text), "state")
	*s = State(i)
	return err
}

// Present reports whether a builder in this state is taken to be there: it has
// a lease that runs, and a stop waits for it.
func (s State) Present() bool { return s == Joined || s.Answered() || s == Rejected }

// Answered reports whether a builder in this state is there and its store has answered:
// builds may be running on it.
func (s State) Answered() bool { return s == StateReady || s == Cordoned || s == Draining }

func word(words []string, i int, kind string) string {
	if i < 0 || i >= len(words) {
		return fmt.Sprintf("%s(%d)", kind, i)
	}
	return words[i]
}

func marshalWord(words []string, i int, kind string) ([]byte, error) {
	if i < 0 || i >= len(words) {
		return nil, fmt.Errorf("%s %d has no word", kind, i)
	}
	return []byte(words[i]), nil
}

func parseWord(words []string, text, kind string) (int, error) {
	for i, w := range words {
		if w == text {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%q is no %s", text, kind)
}
