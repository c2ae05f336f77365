package scheduler

import (
	"fmt"
	"time"
)

// handle does what a hook's message asks for; an error is a breach of the protocol, which
// ends the connection.
func (s *Scheduler) handle(j *job, m Message) error {
	if m.Op == OpTry || m.Op == OpResume {
		if m.Build == nil || m.Build.Derivation == "" || m.Build.System == "" {
			return fmt.Errorf("%s is about no build", m.Op)
		}
	}
	switch m.Op {
	case OpTry:
		return s.try(j, m)
	case OpQueue:
		return s.enqueue(j, m)
	case OpResume:
		return s.resume(j, m)
	case OpDone:
		return s.done(j, m)
	default:
		return fmt.Errorf("%q is no word of a hook", m.Op)
	}
}

// try answers whether a build may come.
func (s *Scheduler) try(j *job, m Message) error {
	w := wishOf(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	if j.stage != fresh {
		return outOfPlace(m.Op, j.stage)
	}
	j.build, j.wish = *m.Build, w
	answer := func(op, why string) error {
		s.count.answers[op]++
		j.tell(Message{Op: op}, why)
		return nil
	}
	switch {
	case s.closed:
		return answer(OpDeclinePermanently, closedReason)
	case !s.told:
		return answer(OpPostpone, "nobody has told yet which machines there are")
	case !s.ever:
		return answer(OpDeclinePermanently, "there are no machines")
	case !s.hopeLocked(j):
		why := s.unfitLocked(j)
		s.count.answers[OpDecline]++
		j.tell(Message{Op: OpDecline, Reason: why}, why)
		return nil
	}
	if chosen := s.chooseLocked(j); chosen != nil {
		j.stage = accepted
		j.take(chosen.machine)
		s.count.answers[OpAccept]++
		j.tell(Message{Op: OpAccept, Machine: chosen.Name}, s.why(chosen))
		return nil
	}
	switch {
	case m.Local:
		return answer(OpDecline, "there is room at home and none elsewhere")
	case s.slotlessLocked() >= s.cfg.MaxWaiting:
		return answer(OpPostpone, "too many wait already")
	}
	j.stage = accepted
	return answer(OpAccept, "it will have to wait")
}

// slotlessLocked counts the builds that were accepted and have no slot.
func (s *Scheduler) slotlessLocked() int {
	n := len(s.queue)
	for j := range s.jobs {
		if j.stage == accepted && j.on == nil {
			n++
		}
	}
	return n
}

// enqueue runs a build on the slot that it was promised, or lets it wait for one.
func (s *Scheduler) enqueue(j *job, m Message) error {
	m.Build = &j.build // which only this connection changes
	w := wishOf(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	again := false
	switch j.stage {
	case accepted:
	case running, stranded:
		// It leaves its machine without a word of its own.
		s.count.ended[OutcomeMoved]++
		again = true
	case moving:
		again = true
	default:
		return outOfPlace(m.Op, j.stage)
	}
	j.wish = w
	if s.closed {
		j.release()
		s.failLocked(j, closedReason)
		return nil
	}
	j.queued = time.Now()
	if j.stage == accepted && j.on != nil && j.on.State == Ready {
		// The user was told this machine's name: it is kept, whatever the inputs say now.
		s.runLocked(j, "it was promised")
		return nil
	}
	j.release()
	s.waitLocked(j, again || m.Tries > 0)
	s.dispatchLocked()
	return nil
}

// resume takes over what a hook has from another scheduler. It counts though there be no
// room, and on a machine that nobody has told of yet.
func (s *Scheduler) resume(j *job, m Message) error {
	w := wishOf(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	if j.stage != fresh {
		return outOfPlace(m.Op, j.stage)
	}
	j.build, j.wish = *m.Build, w
	switch {
	case m.Machine == "" && s.closed:
		s.failLocked(j, closedReason)
	case m.Machine == "":
		j.queued = time.Now()
		s.waitLocked(j, m.Tries > 0)
		s.dispatchLocked()
	case s.machines[m.Machine] == nil && s.told:
		j.stage = stranded
		reason := goneReason
		if gone, known := s.gone[m.Machine]; known {
			reason = gone.reason
		}
		j.tell(Message{Op: OpLost, Machine: m.Machine, Reason: reason}, "")
	default:
		if s.machines[m.Machine] == nil {
			s.ever = true
			s.machines[m.Machine] = &machine{Machine: Machine{Name: m.Machine, State: Coming}}
		}
		j.stage = running
		j.take(s.machines[m.Machine])
		j.on.held.add(j.paths)
	}
	return nil
}

// done frees what a build had.
func (s *Scheduler) done(j *job, m Message) error {
	built, err := s.endBuild(j, m)
	if built != nil && s.cfg.Built != nil {
		s.cfg.Built(*built)
	}
	return err
}

func (s *Scheduler) endBuild(j *job, m Message) (built *Built, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.Outcome == OutcomeGaveUp && j.stage == fresh {
		return nil, nil // it crossed a message that has ended the build already
	}
	if !j.stage.endsWith(m.Outcome) {
		return nil, fmt.Errorf("%q is no outcome of a build that is %v", m.Outcome, j.stage)
	}
	s.count.ended[m.Outcome]++
	if m.Outcome == OutcomeMoved && j.on != nil {
		s.blameLocked(j.on)
	}
	if j.on != nil && (m.Outcome == OutcomeBuilt || m.Outcome == OutcomeFailed) {
		j.on.trust()
	}
	if m.Outcome == OutcomeBuilt && j.on != nil {
		j.on.held.add(pathsOf([]string{j.build.Derivation}, j.build.Outputs))
		built = &Built{Machine: j.on.Name, Build: j.build, Inputs: namesOf(j.inputs)}
	}
	s.leaveLocked(j)
	j.stage = fresh
	if m.Outcome == OutcomeMoved {
		j.stage = moving
	}
	s.dispatchLocked()
	return built, nil
}

// drop forgets a hook whose connection has ended. If it ends because all do, nobody gets what
// it had: the hooks will tell the next scheduler.
func (s *Scheduler) drop(j *job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j.hook.closed = true
	close(j.hook.outbox)
	delete(s.jobs, j)
	if j.stage != fresh && !s.ended {
		s.count.ended[OutcomeGaveUp]++
	}
	s.leaveLocked(j)
	s.dispatchLocked()
}

func namesOf(paths []path) []string {
	names := make([]string, len(paths))
	for i, p := range paths {
		names[i] = p.Value()
	}
	return names
}

func outOfPlace(op string, at stage) error {
	return fmt.Errorf("%s is out of place, its build is %v", op, at)
}
