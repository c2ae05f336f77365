package dispatch

import (
	"strings"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
)

// schedule tells the scheduler of the members. Written says that the files have them: a
// build that is sent to a machine needs what they say of it.
func (r *reconciler) schedule(written bool) {
	if r.d.cfg.Scheduler == nil || r.d.isClosed() {
		return
	}
	var machines []scheduler.Machine
	for _, m := range r.ordered() {
		if s, ok := r.d.scheduled(m, written); ok {
			machines = append(machines, s)
		}
	}
	r.d.cfg.Scheduler.Set(machines)
}

// scheduled is a member as the scheduler knows it; false if it can't be used.
func (d *Dispatcher) scheduled(m *member, written bool) (scheduler.Machine, bool) {
	if m.builder.Offer == nil {
		return scheduler.Machine{}, false
	}
	s := scheduler.Machine{
		Name:     strings.ToLower(m.builder.Name),
		Systems:  m.builder.Offer.Systems,
		Features: m.builder.Offer.Features,
		Slots:    d.maxJobs(m.builder.Offer),
		Speed:    d.speedFactor(m.builder.Offer),
		Memory:   m.builder.Offer.MemoryBytes,
	}
	if m.stage < checked {
		return s, true
	}
	// Nix' own hook counts slots with lock files. The scheduler counts better, and a lock
	// of a hook that has just been ended is not to be in the way of the next.
	machine := m.machine
	machine.MaxJobs = lockedSlots(machine.MaxJobs)
	line, err := machine.Line()
	if err != nil {
		return scheduler.Machine{}, false
	}
	s.Line, s.Slots, s.Speed = line, m.machine.MaxJobs, m.machine.SpeedFactor
	s.Systems, s.Features, s.Mandatory = machine.Systems, machine.Features, machine.Mandatory
	switch {
	case m.rests:
		s.State = scheduler.Resting
	case written:
		s.State = scheduler.Ready
	}
	return s, true
}

// lockedSlots is how many builds Nix' own hook is told that a machine takes, where the
// scheduler lets it have no more than slots. Nix opens a file for each.
func lockedSlots(slots int) int { return min(2*slots+8, max(slots, 256)) }
