package dispatch

import (
	"context"

	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/sshconf"
)

// stage is how far a member is.
type stage int

const (
	resolving stage = iota // what the tailnet says of it is not known
	reachable              // ssh_config should have it
	checked                // its store answered; the machines file should have it
	verified               // the cluster knows
)

// member is a builder that is there, under one id. The reconciler's loop owns it; its
// goroutine only sends events about it.
type member struct {
	builder coordinator.Builder
	cancel  context.CancelFunc // ends its goroutine
	stage   stage
	host    sshconf.Host // from reachable on
	machine nix.Machine  // from checked on
	store   nix.Store    // from checked on
	way     string       // by which its store answered, if that is worth a word
	// resumed says that the cluster took it for ready before we knew it: an earlier
	// process' machines file has it, until it answers us or fails to.
	resumed bool
	// rests says that it is to get no new builds: it is cordoned, or drained.
	rests bool
	// written waits for ssh_config to have the member, or not to. Nil if nobody does.
	written chan<- error
}

// event is what a member's goroutine found out.
type event struct {
	m       *member
	stage   stage        // reachable or checked, if err is nil
	host    sshconf.Host // for reachable
	written chan<- error // for reachable
	machine nix.Machine  // for checked
	store   nix.Store    // for checked
	way     string       // for checked, see member
	err     error        // the attempt failed
	final   bool         // and no other will be better
}

// used tells whether a builder is there and has builds, or is to get some.
func used(b coordinator.Builder) bool {
	switch {
	case b.Leaving || b.ID == uuid.Nil:
		return false
	case b.State == coordinator.Joined:
		return !b.Drained
	}
	return b.State.Answered()
}

// rests tells whether a builder in its state gets no new builds.
func rests(b coordinator.Builder) bool {
	return b.State == coordinator.Cordoned || b.State == coordinator.Draining
}
