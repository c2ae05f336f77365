package scheduler

import "time"

// Version is that of the messages. Hook and scheduler are one program, but a hook of a
// program that has just been replaced may meet the next one's scheduler.
const Version = 1

// What a [Message] is about. Each line of the socket is one message, in JSON.
const (
	// From the hook.
	OpHello  = "hello"  // Version. The first line. Answered by OpWelcome
	OpTry    = "try"    // Build, Local. Answered by one of the four below
	OpQueue  = "queue"  // Inputs, Avoid, Tries. Wants a slot, or confirms the one it has. Answered by OpRun or OpFail
	OpResume = "resume" // Build, Inputs, Avoid, Tries and, if it builds, Machine. In place of OpTry and OpQueue, to another scheduler than accepted it
	OpDone   = "done"   // Outcome, Reason. Its slot is free
	OpAsk    = "ask"    // Machine, Since. What its host went through. Answered by OpCondition

	// To the hook.
	OpWelcome            = "welcome"  // Builders
	OpAccept             = "accept"   // Machine, if it has a slot already
	OpDecline            = "decline"  // Reason, if no machine can do it. Build it yourself
	OpPostpone           = "postpone" // too many wait already
	OpDeclinePermanently = "decline-permanently"
	OpRun                = "run"       // Machine, Line, Waited
	OpLost               = "lost"      // Machine, Reason. The build that runs there is to end at once
	OpFail               = "fail"      // Reason. There will be no slot
	OpCondition          = "condition" // Condition
)

// How a build ended on a machine, for [OpDone].
const (
	OutcomeBuilt  = "built"  // its outputs are here
	OutcomeFailed = "failed" // it fails wherever it is built
	OutcomeMoved  = "moved"  // the machine was lost or to blame: it is built elsewhere
	OutcomeGaveUp = "gave-up"
)

// A Message is what hook and scheduler tell each other. Which members count depends on Op.
type Message struct {
	Op      string `json:"op"`
	Version int    `json:"version,omitempty"`

	Build *Build `json:"build,omitempty"`
	// Local says that Nix could build it itself at once.
	Local bool `json:"local,omitempty"`
	// Inputs are the store paths that the build needs, with all that they refer to.
	Inputs []string `json:"inputs,omitempty"`
	// Avoid are machines where it failed for no fault of its own.
	Avoid []string `json:"avoid,omitempty"`
	Tries int      `json:"tries,omitempty"` // that have failed

	Machine string `json:"machine,omitempty"` // by name
	Line    string `json:"line,omitempty"`    // of a machines file, for Nix' own hook
	Reason  string `json:"reason,omitempty"`
	Outcome string `json:"outcome,omitempty"`
	// Builders is the setting of that name which means this scheduler's machines.
	Builders  string        `json:"builders,omitempty"`
	Waited    time.Duration `json:"waited_ns,omitempty"`
	Since     time.Time     `json:"since,omitzero"`
	Condition *Condition    `json:"condition,omitempty"`
}

// A Build is one derivation to build.
type Build struct {
	Derivation string   `json:"derivation"` // store path
	System     string   `json:"system"`
	Features   []string `json:"features,omitempty"` // that it requires
	// Sources and Derivations are its direct inputs: store paths, and the derivations that
	// make the others. Empty if the derivation could not be read.
	Sources     []string `json:"sources,omitempty"`
	Derivations []string `json:"derivations,omitempty"`
	// Outputs are the output paths that are known before it is built.
	Outputs []string `json:"outputs,omitempty"`
}

// A Condition is what a machine's host went through while a build ran there, as its agent
// knows it. By it a build that failed for want of memory or disk is told from one that fails
// everywhere.
type Condition struct {
	// OOMKills are processes that its kernel ended for want of memory.
	OOMKills int `json:"oom_kills,omitempty"`
	// DiskFull says that the file system of /nix had no room.
	DiskFull bool `json:"disk_full,omitempty"`
	// Leaving says that it is about to leave.
	Leaving bool `json:"leaving,omitempty"`
	// Unknown says that nobody could tell, and why.
	Unknown string `json:"unknown,omitempty"`
}
