package coordinator

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/google/uuid"
)

// Node is who the tailnet says is calling. Nothing in it comes from the request.
type Node struct {
	ID   string     `json:"id"`      // the tailnet's stable node id
	Name string     `json:"name"`    // the first label of the node's name, such as "nix-builder-a1-1"
	FQDN string     `json:"fqdn"`    // the node's whole name
	Addr netip.Addr `json:"address"` // the address it calls from
}

// CheckIn is a builder's word on who it is and what it offers.
type CheckIn struct {
	Cluster  string    // id of the cluster that it looks for
	Name     string    // its name as the workflow gave it
	Instance uuid.UUID // drawn once by each builder process
	Offer    Offer
	Vitals   *Vitals // nil: not told
}

// Offer is what a builder offers, as measured on its host.
type Offer struct {
	Systems        []string `json:"systems"` // Nix systems, the native one first
	Cores          int      `json:"cores"`
	MemoryBytes    int64    `json:"memory_bytes"`
	StoreFreeBytes int64    `json:"store_free_bytes"` // free where /nix lies
	Features       []string `json:"features"`         // Nix system features
	NixVersion     string   `json:"nix_version"`
	StoreProgram   string   `json:"store_program"` // absolute path of nix-daemon
	// HostKeys are the SSH host keys as the builder knows them, for the report
	// only: what is trusted is what the tailnet publishes.
	HostKeys []string `json:"host_keys,omitempty"`
	// MaxJobs and SpeedFactor are what the builder's own settings say. Nil: nothing, so
	// the coordinator's count.
	MaxJobs     *int `json:"max_jobs,omitempty"`
	SpeedFactor *int `json:"speed_factor,omitempty"`
	// StorePort is where its agent serves the store to the coordinator. Nil: it does not.
	StorePort *int `json:"store_port,omitempty"`
}

// Vitals is how a builder's host is, and what was seen of its builds.
type Vitals struct {
	CPUPercent      float64 `json:"cpu_percent"` // 0 to 100
	MemoryFreeBytes int64   `json:"memory_free_bytes"`
	StoreFreeBytes  int64   `json:"store_free_bytes"`
	Builds          int     `json:"builds"` // builds that run
	// StoreTotalBytes is the size of the file system that /nix lies on. Nil: not told.
	StoreTotalBytes *int64 `json:"store_total_bytes,omitempty"`
	// MemoryStallPercent and IOStallPercent are the share of the last 10 s in which all
	// that wanted to run waited for memory or for the disk (Linux' pressure stall
	// information, "full"), 0 to 100. Nil: the system does not tell.
	MemoryStallPercent *float64 `json:"memory_stall_percent,omitempty"`
	IOStallPercent     *float64 `json:"io_stall_percent,omitempty"`
	// PeakBuilds is the most builds that were seen running at a time, and BusySeconds
	// the seconds that each build was seen running, summed. Both are sampled, from when
	// the builder was claimed. Nil: nobody looked.
	PeakBuilds  *int     `json:"peak_builds,omitempty"`
	BusySeconds *float64 `json:"busy_seconds,omitempty"`
}

// Ticket is the answer to a check-in.
type Ticket struct {
	ID      uuid.UUID // the builder's id in polls and in its departure
	Cluster string
	Name    string // as the cluster's list has it
	Phase   Phase
	Lease   time.Duration // silence after which each side takes the other for lost
	Poll    time.Duration // the longest poll: a third of the lease
}

// CheckIn takes a builder's check-in from the node and returns its ticket, and
// whether it is a new one in a cluster that can use it.
//
// A repeat by the same instance on the same node renews the lease and what is known
// of the builder, under the same id; a lost builder is joined again. A new instance
// on the same node, an instance that departed before, and another node where the
// holder is lost or departed get a new id; the old id is [ErrReplaced] from then on.
// An instance that was replaced can't take the place back from one that is there.
//
// In a failed, stopping or stopped cluster, and for a builder that was released or
// rejected, a check-in is taken all the same: the next poll brings the teardown.
//
// Errors: [*FieldError], [ErrWrongCluster], [ErrNotExpected], [ErrNotYours],
// [ErrNameHeld]. The check-in is saved when CheckIn returns.
func (c *Cluster) CheckIn(ctx context.Context, node Node, in CheckIn) (ticket Ticket, created bool, err error) {
	if err := in.Validate(); err != nil {
		return Ticket{}, false, fmt.Errorf("check in: %w", err)
	}
	if ctx.Err() != nil {
		return Ticket{}, false, fmt.Errorf("check in %s: %w", in.Name, context.Cause(ctx))
	}
	c.mu.Lock()
	ticket, created, err = c.checkInLocked(node, in)
	c.mu.Unlock()
	if err != nil {
		return Ticket{}, false, fmt.Errorf("check in %s: %w", in.Name, err)
	}
	c.commit() // a disk that fails is logged and reported by a stop; the cluster goes on
	return ticket, created, nil
}

func (c *Cluster) checkInLocked(node Node, in CheckIn) (Ticket, bool, error) {
	if in.Cluster != c.cfg.ID {
		return Ticket{}, false, fmt.Errorf("%w: this is %s", ErrWrongCluster, c.cfg.ID)
	}
	s, err := c.claimLocked(node, in.Name)
	if err != nil {
		return Ticket{}, false, err
	}
	same := s.Node.ID == node.ID && s.Instance == in.Instance
	switch {
	case same && s.State != Departed && s.State != Expected:
		c.heardLocked(s)
		c.learnLocked(s, node, in)
		return c.ticketLocked(s), false, nil
	case s.State.Present() && s.Node.ID != node.ID:
		return Ticket{}, false, fmt.Errorf("%w by node %s, which is %s", ErrNameHeld, cmp.Or(s.Node.Name, s.Node.ID), s.State)
	case s.State.Present() && c.replacedLocked(node, in.Instance):
		return Ticket{}, false, fmt.Errorf("%w by a newer instance on this node", ErrNameHeld)
	}
	reason := "checked in"
	switch {
	case s.State == Expected:
	case s.Node.ID != node.ID:
		reason = fmt.Sprintf("node %s took over from %s, which was %s", node.Name, s.Node.Name, s.State)
	case same:
		reason = "checked in again after its departure"
	default:
		reason = "a new instance checked in"
	}
	c.retireLocked(s)
	s.ID, s.Instance, s.Node = uuid.New(), in.Instance, node
	s.JoinedAt = time.Now()
	s.heard, s.broke = time.Now(), time.Time{}
	s.Vitals, s.told, s.strain = nil, time.Time{}, ""
	s.Cut = nil
	c.byID[s.ID] = s
	c.mustMoveLocked(s, Joined, reason)
	c.learnLocked(s, node, in)
	return c.ticketLocked(s), c.phase <= Ready, nil
}

// replacedLocked reports whether the instance on the node lost a slot before.
func (c *Cluster) replacedLocked(node Node, instance uuid.UUID) bool {
	for _, f := range c.former {
		if f.Instance == instance && f.Node == node.ID {
			return true
		}
	}
	return false
}

// learnLocked takes over what the check-in tells. What the slot points to is never
// changed, only replaced, so that views and records may share it while they copy.
func (c *Cluster) learnLocked(s *slot, node Node, in CheckIn) {
	offer := in.Offer.clone()
	if s.Node != node || s.Offer == nil || !reflect.DeepEqual(*s.Offer, offer) {
		s.Node, s.Offer = node, &offer
		c.edits++
	}
	s.learnVitals(in.Vitals)
	c.settleLocked()
	c.bumpLocked()
	c.wakeLocked()
}

func (c *Cluster) ticketLocked(s *slot) Ticket {
	return Ticket{
		ID: s.ID, Cluster: c.cfg.ID, Name: s.Name, Phase: c.phase,
		Lease: c.cfg.Lease, Poll: c.cfg.poll(),
	}
}

// clone is a deep copy.
func (o Offer) clone() Offer {
	o.Systems = slices.Clone(o.Systems)
	o.Features = slices.Clone(o.Features)
	o.HostKeys = slices.Clone(o.HostKeys)
	o.MaxJobs, o.SpeedFactor, o.StorePort = clonePointer(o.MaxJobs), clonePointer(o.SpeedFactor), clonePointer(o.StorePort)
	return o
}

// clone is a deep copy.
func (v Vitals) clone() Vitals {
	v.PeakBuilds, v.BusySeconds = clonePointer(v.PeakBuilds), clonePointer(v.BusySeconds)
	v.StoreTotalBytes = clonePointer(v.StoreTotalBytes)
	v.MemoryStallPercent, v.IOStallPercent = clonePointer(v.MemoryStallPercent), clonePointer(v.IOStallPercent)
	return v
}

func clonePointer[T any](p *T) *T {
	if p == nil {
		return nil
	}
	return new(*p)
}
