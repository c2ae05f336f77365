package coordinator

import (
	"net/netip"
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
}

// Vitals is how a builder's host is.
type Vitals struct {
	CPUPercent      float64 `json:"cpu_percent"` // 0 to 100
	MemoryFreeBytes int64   `json:"memory_free_bytes"`
	StoreFreeBytes  int64   `json:"store_free_bytes"`
	Builds          int     `json:"builds"` // builds that run
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

// Teardown tells a builder to leave. It is state: a poll that comes late gets
// it at once.
type Teardown struct {
	Phase  Phase
	Reason string // one line for the builder's log
	At     time.Time
}

// Departure is a builder's word that it leaves, given before it leaves the tailnet.
type Departure struct {
	Reason DepartureReason
	Detail string // at most [MaxDetailLength] characters
}

// DepartureReason is why a builder leaves.
type DepartureReason string

// The reasons for which builders leave.
const (
	DepartTeardown  DepartureReason = "teardown"  // it was told to
	DepartTimeout   DepartureReason = "timeout"   // its coordinator fell silent
	DepartCancelled DepartureReason = "cancelled" // its job was cancelled
	DepartFailed    DepartureReason = "failed"    // something went wrong
)
