package control

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"tailscale.com/net/tsaddr"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/util/dnsname"
)

// Node is what a test sees of a node.
type Node struct {
	// Name is the first label of the node's MagicDNS name: sanitised, unique.
	Name string `json:"name"`
	// Hostname is what the node claims to be called.
	Hostname string `json:"hostname"`
	// ID is the StableNodeID, which is never used again.
	ID        string       `json:"id"`
	Tags      []string     `json:"tags"`
	User      string       `json:"user"` // the owner's login name; "" if tagged
	IPs       []netip.Addr `json:"ips"`
	Online    bool         `json:"online"` // has a map poll open
	Ephemeral bool         `json:"ephemeral"`
}

// node is one member of the tailnet. All of it is guarded by registry.mu.
type node struct {
	wire      *tailcfg.Node // what peers are told; Name, Tags, Online... are kept current
	label     string        // the first label of wire.Name
	login     string        // owner's login name; only meaningful without tags
	ephemeral bool
	expired   bool // logged out; comes back by registering anew

	poll   chan struct{} // nil if offline; else closed to end the open map poll
	expiry *time.Timer   // removes an ephemeral node; nil while online
}

// registry is the set of nodes and the policy between them.
type registry struct {
	domain         string
	ephemeralAfter time.Duration
	deviceApproval bool
	logf           func(string, ...any)

	mu      sync.Mutex
	closed  bool
	lastID  int64
	nodes   map[key.NodePublic]*node
	gone    map[key.NodePublic]*tailcfg.Node // as they were when they were removed
	keys    []AuthKey
	policy  Policy
	changed chan struct{} // closed and replaced whenever any of the above changes
}

func newRegistry(cfg Config) *registry {
	return &registry{
		domain:         cfg.Domain,
		ephemeralAfter: cfg.EphemeralAfter,
		deviceApproval: cfg.DeviceApproval,
		keys:           slices.Clone(cfg.AuthKeys),
		logf:           cfg.Logf,
		nodes:          map[key.NodePublic]*node{},
		gone:           map[key.NodePublic]*tailcfg.Node{},
		policy:         *cfg.Policy,
		changed:        make(chan struct{}),
	}
}

// close stops the timers; nothing changes afterwards.
func (r *registry) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, n := range r.nodes {
		n.cancelExpiryLocked()
	}
}

func (r *registry) notifyLocked() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// sortedLocked returns the nodes in the order they joined.
func (r *registry) sortedLocked() []*node {
	all := make([]*node, 0, len(r.nodes))
	for _, n := range r.nodes {
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b *node) int { return cmp.Compare(a.wire.ID, b.wire.ID) })
	return all
}

func (r *registry) list() []Node {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := []Node{}
	for _, n := range r.sortedLocked() {
		seen := Node{
			Name:      n.label,
			Hostname:  n.wire.Hostinfo.Hostname(),
			ID:        string(n.wire.StableID),
			Tags:      slices.Clone(n.wire.Tags),
			Online:    n.poll != nil,
			Ephemeral: n.ephemeral,
		}
		if len(n.wire.Tags) == 0 {
			seen.User = n.login
		}
		for _, a := range n.wire.Addresses {
			seen.IPs = append(seen.IPs, a.Addr())
		}
		list = append(list, seen)
	}
	return list
}

func (r *registry) getPolicy() Policy {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.policy
}

func (r *registry) setPolicy(p Policy) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.policy = p
	r.notifyLocked()
}

func (r *registry) remove(stableID, why string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.nodes {
		if string(n.wire.StableID) == stableID {
			r.removeLocked(n, why)
			return true
		}
	}
	return false
}

func (r *registry) removeLocked(n *node, why string) {
	r.logf("node %s removed: %s", n.label, why)
	n.cancelExpiryLocked()
	n.endPollLocked()
	delete(r.nodes, n.wire.Key)
	r.gone[n.wire.Key] = n.wire
	r.notifyLocked()
}

func (n *node) cancelExpiryLocked() {
	if n.expiry != nil {
		n.expiry.Stop()
		n.expiry = nil
	}
}

func (n *node) endPollLocked() {
	if n.poll != nil {
		close(n.poll)
		n.poll = nil
	}
}

// expireLaterLocked starts the clock of an ephemeral node that is offline.
func (r *registry) expireLaterLocked(n *node) {
	if !n.ephemeral || r.closed {
		return
	}
	n.cancelExpiryLocked()
	var t *time.Timer
	t = time.AfterFunc(r.ephemeralAfter, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if n.expiry == t && r.nodes[n.wire.Key] == n { // not stopped while waiting for the lock
			r.removeLocked(n, "ephemeral and offline")
		}
	})
	n.expiry = t
}

// addLocked makes a new node with fresh addresses and ids.
func (r *registry) addLocked(k key.NodePublic, machine key.MachinePublic) *node {
	r.lastID++
	id := r.lastID
	ip4 := netip.AddrFrom4([4]byte{100, 64, byte(id >> 8), byte(id)})
	addrs := []netip.Prefix{
		netip.PrefixFrom(ip4, 32),
		netip.PrefixFrom(tsaddr.Tailscale4To6(ip4), 128),
	}
	n := &node{wire: &tailcfg.Node{
		ID:                tailcfg.NodeID(id),
		StableID:          tailcfg.StableNodeID(fmt.Sprintf("nLAB%07dCNTRL", id)),
		Key:               k,
		Machine:           machine,
		MachineAuthorized: true,
		Addresses:         addrs,
		AllowedIPs:        addrs,
		Created:           time.Now().UTC(),
	}}
	r.nodes[k] = n
	delete(r.gone, k)
	return n
}

// nameLocked derives the node's MagicDNS name from the hostname that it claims,
// as Tailscale does: sanitised, and with the first free of "-1", "-2"... if
// another node has that name.
func (r *registry) nameLocked(n *node, hostname string) {
	base := cmp.Or(dnsname.SanitizeHostname(hostname), "node")
	label := base
	for i := 1; r.takenLocked(n, label); i++ {
		label = fmt.Sprintf("%s-%d", base, i)
	}
	n.label = label
	n.wire.Name = label + "." + r.domain + "."
	n.wire.InitDisplayNames(r.domain)
}

func (r *registry) takenLocked(n *node, label string) bool {
	for _, other := range r.nodes {
		if other != n && strings.EqualFold(other.label, label) {
			return true
		}
	}
	return false
}
