package scheduler

// A State is what a machine is good for.
type State int

const (
	// Coming is a machine that is there and whose store has not answered yet: builds for it
	// wait, and those that it has go on.
	Coming State = iota
	// Ready machines get builds.
	Ready
	// Resting machines get no new builds; those that they have go on.
	Resting
)

// A Machine is a builder as far as scheduling goes.
type Machine struct {
	Name  string // tells it from the others; people read it
	State State
	// Line is its line of a machines file, which Nix' own hook is given as all there is.
	Line      string
	Systems   []string
	Features  []string // that it has
	Mandatory []string // that a build must require to be sent there
	Slots     int      // builds at a time
	Speed     int      // beside the others; zero means 1
	Memory    int64    // bytes; zero if not known
}
