package dispatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/sshconf"
)

// reconciler makes the files agree with the cluster, from one goroutine.
type reconciler struct {
	d       *Dispatcher
	cluster Cluster
	members map[uuid.UUID]*member
	events  chan event
	wake    chan struct{} // holds a token if the cluster changed
	// introduced says that the daemon knows of the machines file.
	introduced bool
	started    bool // the first look at the cluster is over
	// gone are the names of members that were dropped, and until when builds for them are
	// looked for: Nix' hooks read the machines file before they connect, and some wait
	// long in between.
	gone map[string]time.Time
	// known are the names of builders that are gone or were once.
	known map[string]bool
	// dropped says that a member was dropped since cut, when links were looked for last.
	dropped bool
	cut     time.Time

	goroutines sync.WaitGroup
}

const (
	awaitWait  = 50 * time.Second // of one look at the cluster; it wakes us earlier if it changes
	writeRetry = time.Second      // after files could not be written
)

// watch wakes the loop when the cluster changes.
func (r *reconciler) watch(ctx context.Context) {
	for after := int64(-1); ctx.Err() == nil; {
		v := r.cluster.Await(ctx, after, awaitWait)
		if v.Revision == after {
			continue
		}
		after = v.Revision
		select {
		case r.wake <- struct{}{}:
		default: // it will look anyway
		}
	}
}

// loop looks at the cluster and makes the files agree, each time that something changed.
func (r *reconciler) loop(ctx context.Context, introduced <-chan error) error {
	retry := time.NewTimer(0)
	retry.Stop()
	defer retry.Stop()
	again := time.NewTimer(0)
	again.Stop()
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-introduced:
			if err != nil && ctx.Err() == nil && !r.d.isClosed() {
				return err
			}
			r.introduced = err == nil
		case e := <-r.events:
			r.take(e)
		case <-r.wake:
		case <-retry.C:
		case <-again.C:
		}
		for more := true; more; more = r.verify() {
			r.drain()
			r.look(ctx)
			err := r.write(ctx)
			r.cutOff(ctx)
			if len(r.gone) > 0 {
				again.Reset(cutAgain)
			}
			if err != nil {
				retry.Reset(writeRetry)
				break
			}
		}
	}
}

// drain takes what else has come, so that one write serves it all.
func (r *reconciler) drain() {
	for {
		select {
		case e := <-r.events:
			r.take(e)
		default:
			return
		}
	}
}

// take takes what a member's goroutine found out.
func (r *reconciler) take(e event) {
	m := e.m
	if r.members[m.builder.ID] != m {
		return // it is gone, and who has its name now is another
	}
	switch {
	case e.final:
		r.d.log.Warn("a builder is of no use", "builder", m.builder.Name, "err", e.err)
		if err := r.cluster.Reject(m.builder.ID, e.err.Error()); err != nil {
			r.d.log.Debug("the builder left before it was rejected", "builder", m.builder.Name, "err", err)
		}
		m.resumed = false // it stays a member, at rest, until the cluster says that it is gone
	case e.err != nil:
		r.d.log.Info("a builder's store does not answer yet", "builder", m.builder.Name, "err", e.err)
		r.cluster.Note(m.builder.ID, e.err.Error())
		m.resumed = false
	case e.stage == reachable:
		m.stage, m.host, m.written = reachable, e.host, e.written
	case e.stage == checked:
		m.stage, m.machine, m.store, m.way, m.resumed = checked, e.machine, e.store, e.way, false
	}
}

// look makes members of the builders that are there, and drops those that are not.
func (r *reconciler) look(ctx context.Context) {
	v := r.cluster.Await(ctx, -1, 0)
	there, reasons := map[uuid.UUID]bool{}, map[uuid.UUID]string{}
	for _, b := range v.Builders {
		reasons[b.ID] = b.Reason
		if !used(b) {
			if !r.started && b.ID != uuid.Nil {
				// An earlier process may have ended before what Nix had sent there did.
				r.lose(b)
			}
			continue
		}
		there[b.ID] = true
		m := r.members[b.ID]
		if m != nil && m.stage == verified && b.State == coordinator.Joined {
			// It was lost and came back between two looks, and must answer anew.
			r.drop(m, "it was lost, and came back")
			m = nil
		}
		if m == nil {
			r.join(ctx, b)
			continue
		}
		r.update(m, b)
	}
	for id, m := range r.members {
		if !there[id] {
			r.drop(m, cmp.Or(reasons[id], "another took its place"))
		}
	}
	r.started = true
}

// join makes a member of a builder and finds out whether its store answers.
func (r *reconciler) join(ctx context.Context, b coordinator.Builder) {
	ctx, cancel := context.WithCancel(ctx)
	m := &member{builder: b, cancel: cancel, resumed: !r.started && b.State.Answered(), rests: rests(b)}
	r.members[b.ID] = m
	p := probe{d: r.d, m: m, builder: b, events: r.events}
	r.goroutines.Go(func() {
		defer cancel()
		p.run(ctx)
	})
}

// update takes over what has changed of a builder whose store has answered.
func (r *reconciler) update(m *member, b coordinator.Builder) {
	m.builder, m.rests = b, rests(b)
	if m.stage < checked {
		return // its goroutine makes the machine of what it joined with
	}
	machine, err := r.d.machine(b, m.host)
	if err != nil {
		r.d.log.Debug("what a builder offers now can't stand in the machines file", "builder", b.Name, "err", err)
		return
	}
	machine.Direct = m.machine.Direct // an agent that serves elsewhere is another instance
	if m.stage == verified && !reflect.DeepEqual(machine, m.machine) {
		m.stage = checked // the cluster is told, once the file has it
	}
	m.machine = machine
}

// drop forgets a member; the next write takes it out of the files. Builds that the scheduler
// has there go elsewhere at once, and those that Nix itself had sent are ended then.
func (r *reconciler) drop(m *member, reason string) {
	m.cancel()
	delete(r.members, m.builder.ID)
	r.lose(m.builder)
	if r.d.cfg.Scheduler != nil {
		r.d.cfg.Scheduler.Lose(strings.ToLower(m.builder.Name), reason)
	}
}

// ordered gives the members by name, so that logs and checks read the same each time.
func (r *reconciler) ordered() []*member {
	return slices.SortedFunc(maps.Values(r.members), func(a, b *member) int {
		return strings.Compare(a.builder.Name, b.builder.Name)
	})
}

// write makes the files agree with the members, and lets those who wait for it know.
//
// What an earlier process left in them for builders that are still ready stays until each
// of those has answered, or failed to: a build that finds no machines for a moment fails.
func (r *reconciler) write(ctx context.Context) error {
	defer r.keep()
	var hosts []sshconf.Host
	machines, usable := map[string]nix.Machine{}, map[string]bool{}
	keep, unknown := false, false
	for _, m := range r.ordered() {
		keep = keep || m.resumed
		unknown = unknown || m.resumed && m.stage == resolving
		if m.stage >= reachable {
			hosts = append(hosts, m.host)
		}
		if m.stage >= checked && !m.rests {
			machines[m.machine.Name] = m.machine
		}
		if !m.rests && (m.resumed || m.stage >= checked) {
			usable[strings.ToLower(m.builder.Name)] = true
		}
	}
	var err error
	if keep {
		machines = nil
		err = r.d.keepMachines(ctx, usable)
	}
	if err == nil && unknown {
		r.schedule(true)
		return nil
	}
	if err == nil {
		err = r.d.write(ctx, hosts, r.absent(hosts), machines)
	}
	if errors.Is(err, errClosed) || ctx.Err() != nil {
		return nil // it is over, for who waits for the files too
	}
	r.schedule(err == nil)
	if err != nil {
		r.d.log.Error("Nix was not told of the builders; trying again", "err", err)
	}
	for _, m := range r.ordered() {
		if m.written != nil {
			m.written <- err // it has room for the one answer
			m.written = nil
		}
		if err != nil && m.stage == checked {
			r.cluster.Note(m.builder.ID, fmt.Sprintf("its store answered, but: %v", err))
		}
	}
	return err
}

// verify tells the cluster of the members that Nix can use, and reports whether there were
// any.
func (r *reconciler) verify() (some bool) {
	if !r.introduced {
		return false
	}
	for _, m := range r.ordered() {
		if m.stage != checked || !m.rests && !r.d.has(m.machine) {
			continue
		}
		some = true
		m.stage = verified // whatever the cluster says: the next look tells what became of it
		r.cluster.Reached(m.builder.ID, m.way)
		if err := r.cluster.Verified(m.builder.ID, m.machine.MaxJobs, m.machine.SpeedFactor); err != nil {
			r.d.log.Debug("the builder left before it was ready", "builder", m.builder.Name, "err", err)
			continue
		}
		r.d.log.Info("Nix may build there", "builder", m.builder.Name, "max_jobs", m.machine.MaxJobs,
			"speed_factor", m.machine.SpeedFactor, "systems", m.machine.Systems, "nix_version", m.store.Version)
	}
	return some
}
