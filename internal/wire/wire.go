// Package wire translates between the domain's types and the contract's.
//
// They are alike, yet apart: a change of the one is not to change the other unseen. The
// contract's types are those of package apiclient.
package wire

import (
	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// CheckInOf is the domain's check-in of one that was received.
func CheckInOf(c apiclient.CheckIn) coordinator.CheckIn {
	in := coordinator.CheckIn{
		Cluster:  c.Cluster,
		Name:     c.Name,
		Instance: c.Instance,
		Offer: coordinator.Offer{
			Systems:        c.Offer.Systems,
			Cores:          c.Offer.Cores,
			MemoryBytes:    c.Offer.MemoryBytes,
			StoreFreeBytes: c.Offer.StoreFreeBytes,
			Features:       c.Offer.Features,
			NixVersion:     c.Offer.NixVersion,
			StoreProgram:   c.Offer.StoreProgram,
			MaxJobs:        c.Offer.MaxJobs,
			SpeedFactor:    c.Offer.SpeedFactor,
			StorePort:      c.Offer.StorePort,
		},
		Vitals: vitalsOf(c.Vitals),
	}
	if c.Offer.HostKeys != nil {
		in.Offer.HostKeys = *c.Offer.HostKeys
	}
	return in
}

// DepartureOf is the domain's departure of one that was received.
func DepartureOf(d apiclient.Departure) coordinator.Departure {
	out := coordinator.Departure{Reason: coordinator.DepartureReason(d.Reason), Vitals: vitalsOf(d.Vitals)}
	if d.Detail != nil {
		out.Detail = *d.Detail
	}
	return out
}

func vitalsOf(v *apiclient.Vitals) *coordinator.Vitals {
	if v == nil {
		return nil
	}
	return &coordinator.Vitals{
		CPUPercent:      v.CpuPercent,
		MemoryFreeBytes: v.MemoryFreeBytes,
		StoreFreeBytes:  v.StoreFreeBytes,
		Builds:          v.Builds,
		PeakBuilds:      v.PeakBuilds,
		BusySeconds:     v.BusySeconds,

		StoreTotalBytes:    v.StoreTotalBytes,
		MemoryStallPercent: v.MemoryStallPercent,
		IOStallPercent:     v.IoStallPercent,
	}
}

// Ticket is t as a check-in is answered.
func Ticket(t coordinator.Ticket) apiclient.Ticket {
	return apiclient.Ticket{
		Id:           t.ID,
		Cluster:      t.Cluster,
		Name:         t.Name,
		Phase:        phase(t.Phase),
		LeaseSeconds: t.Lease.Seconds(),
		PollSeconds:  t.Poll.Seconds(),
	}
}

// Teardown is t as a poll is answered.
func Teardown(t coordinator.Teardown) apiclient.Teardown {
	return apiclient.Teardown{Phase: phase(t.Phase), Reason: t.Reason, At: t.At}
}

// Cluster is v as readers get it.
func Cluster(v coordinator.View) apiclient.Cluster {
	c := apiclient.Cluster{
		Id:           v.ID,
		Phase:        phase(v.Phase),
		Reason:       v.Reason,
		Since:        v.Since,
		Revision:     v.Revision,
		Event:        v.Event,
		Quorum:       v.Quorum,
		LeaseSeconds: v.Lease.Seconds(),
		Builders:     make([]apiclient.Builder, 0, len(v.Builders)),
	}
	if v.SystemQuorum != nil {
		c.SystemQuorum = &v.SystemQuorum
	}
	for _, b := range v.Builders {
		c.Builders = append(c.Builders, builder(b))
	}
	return c
}

func builder(b coordinator.Builder) apiclient.Builder {
	out := apiclient.Builder{
		Name:        b.Name,
		State:       state(b.State),
		Reason:      b.Reason,
		Since:       b.Since,
		Id:          optional(b.ID),
		Node:        optional(b.Node.ID),
		NodeName:    optional(b.Node.Name),
		MaxJobs:     optional(b.MaxJobs),
		SpeedFactor: optional(b.SpeedFactor),
		JoinedAt:    optional(b.JoinedAt),
		ReadyAt:     optional(b.ReadyAt),
		LeftAt:      optional(b.LeftAt),
		Leaving:     optional(b.Leaving),
	}
	if b.Node.Addr.IsValid() {
		out.Address = new(b.Node.Addr.String())
	}
	if b.State.Present() || b.State == coordinator.Lost {
		out.SilentSeconds = new(b.Silent.Seconds())
	}
	if o := b.Offer; o != nil {
		out.Offer = &apiclient.Offer{
			Systems:        o.Systems,
			Cores:          o.Cores,
			MemoryBytes:    o.MemoryBytes,
			StoreFreeBytes: o.StoreFreeBytes,
			Features:       o.Features,
			NixVersion:     o.NixVersion,
			StoreProgram:   o.StoreProgram,
			MaxJobs:        o.MaxJobs,
			SpeedFactor:    o.SpeedFactor,
			StorePort:      o.StorePort,
		}
		if len(o.HostKeys) > 0 {
			out.Offer.HostKeys = &o.HostKeys
		}
	}
	if v := b.Vitals; v != nil {
		out.Vitals = &apiclient.Vitals{
			CpuPercent:      v.CPUPercent,
			MemoryFreeBytes: v.MemoryFreeBytes,
			StoreFreeBytes:  v.StoreFreeBytes,
			Builds:          v.Builds,
			PeakBuilds:      v.PeakBuilds,
			BusySeconds:     v.BusySeconds,

			StoreTotalBytes:    v.StoreTotalBytes,
			MemoryStallPercent: v.MemoryStallPercent,
			IoStallPercent:     v.IOStallPercent,
		}
	}
	return out
}

// StopReport is r as a stop is answered.
func StopReport(r coordinator.StopReport) apiclient.StopReport {
	out := apiclient.StopReport{
		Phase:       phase(r.Phase),
		StoppedAt:   r.StoppedAt,
		TookSeconds: r.Took.Seconds(),
		BuildsCut:   optional(r.Cut),
		Builders:    make([]apiclient.Released, 0, len(r.Builders)),
	}
	for _, b := range r.Builders {
		released := apiclient.Released{
			Name: b.Name, State: state(b.State), Reason: b.Reason, Left: b.Left, BuildsCut: optional(b.Cut),
		}
		if b.After != nil {
			released.AfterSeconds = new(b.After.Seconds())
		}
		out.Builders = append(out.Builders, released)
	}
	if len(r.Faults) > 0 {
		out.Faults = &r.Faults
	}
	return out
}

// Event is e as streams and webhooks carry it.
func Event(e coordinator.Event) apiclient.Event {
	return apiclient.Event{
		Number:  e.Number,
		Type:    apiclient.EventType(e.Type),
		At:      e.At,
		Cluster: e.Cluster,
		Builder: optional(e.Builder),
		From:    optional(e.From),
		To:      optional(e.To),
		Reason:  e.Reason,
	}
}

func phase(p coordinator.Phase) apiclient.Phase { return apiclient.Phase(p.String()) }

func state(s coordinator.State) apiclient.BuilderState {
	return apiclient.BuilderState(s.String())
}

// optional returns nil for the zero value, which the contract leaves out.
func optional[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
