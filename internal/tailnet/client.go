package tailnet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"tailscale.com/client/local"
	"tailscale.com/ipn"
	"tailscale.com/ipn/ipnstate"
	"tailscale.com/paths"
	"tailscale.com/safesocket"
	"tailscale.com/types/views"
	"tailscale.com/util/dnsname"
)

// ErrNoPeer says that the tailnet shows this node no peer with the given id or
// address.
var ErrNoPeer = errors.New("no node of the tailnet")

// ErrNotRunning says that tailscaled answers, but this node is not on a tailnet.
var ErrNotRunning = errors.New("tailscale is not connected")

// Client asks the tailscaled of this host. It is safe for concurrent use.
type Client struct {
	local *local.Client

	mu   sync.Mutex
	self selfMemo // guarded by mu
}

// selfMemo is what hardly ever changes about this node, kept for selfFresh so
// that each request served does not cost a second question to tailscaled.
type selfMemo struct {
	id        string
	ips       []netip.Addr
	userspace bool
	at        time.Time // when it was asked; zero: never
}

// selfFresh is how long a selfMemo is believed. A node that logs in anew within
// it is for so long not recognised as this one: it may do less, never more.
const selfFresh = 10 * time.Second

// New returns a client of the tailscaled behind the Unix socket. If socket is
// empty, it is the platform's own, or on macOS that of the Tailscale app.
func New(socket string) *Client {
	return FromLocal(&local.Client{Dial: localDial(socket)})
}

// localDial connects to tailscaled once. The dialler that the LocalAPI's client
// brings would wait up to 5 s in case tailscaled is starting, and on a failure
// run systemctl to explain it, with our whole environment.
func localDial(socket string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		network, addr := "unix", cmp.Or(socket, paths.DefaultTailscaledSocket())
		if socket == "" {
			// The app of macOS listens on a TCP port that it tells its user.
			if port, _, err := safesocket.LocalTCPPortAndToken(); err == nil {
				network, addr = "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
			}
		}
		conn, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, fmt.Errorf("no tailscaled at %s: %w", addr, err)
		}
		return conn, nil
	}
}

// FromLocal returns a client over lc, such as the one of a tsnet.Server.
func FromLocal(lc *local.Client) *Client { return &Client{local: lc} }

// Node is a member of the tailnet, as the tailnet has it.
type Node struct {
	ID   string     // StableNodeID, the identity
	Name string     // first label of FQDN: sanitised and unique by the tailnet
	FQDN string     // MagicDNS name without the final dot
	Addr netip.Addr // IPv4 if it has one
	Tags []string   // sorted; empty for a person's node
}

// Self is this host's own node.
type Self struct {
	Node
	IPs []netip.Addr
	// HostKeys are the SSH host keys that the tailnet publishes for this node,
	// "TYPE BASE64" each. Empty without Tailscale SSH, or where the control
	// server does not tell a node its own.
	HostKeys []string
	// Userspace tells that tailscaled has no TUN device: the host has neither
	// the addresses nor a route to its peers.
	Userspace bool
}

// Peer is another node that the tailnet's policy lets this one see.
type Peer struct {
	Node
	// Online is what the control server last heard. It stays true for minutes
	// after a link is cut: good for an order to try in, for nothing else.
	Online   bool
	HostKeys []string // SSH host keys the tailnet publishes, "TYPE BASE64" each
}

// SanitizeHostname is what the tailnet makes of a host name: one lower-case DNS
// label. A clash suffix ("-1") may still be added to it.
func SanitizeHostname(name string) string { return dnsname.SanitizeHostname(name) }

// Self returns this host's node. The error is [ErrNotRunning] if tailscaled
// answers but is not connected.
func (c *Client) Self(ctx context.Context) (Self, error) {
	st, err := c.local.StatusWithoutPeers(ctx)
	if err != nil {
		return Self{}, fmt.Errorf("ask tailscaled for this node: %w", err)
	}
	self, err := selfOf(st)
	if err != nil {
		return Self{}, err
	}
	// Status knows the host keys of peers only; WhoIs shows the whole node.
	if who, err := c.local.WhoIs(ctx, self.Addr.String()); err == nil && who.Node.Hostinfo.Valid() {
		self.HostKeys = who.Node.Hostinfo.SSH_HostKeys().AsSlice()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.self = selfMemo{id: self.ID, ips: self.IPs, userspace: self.Userspace, at: time.Now()}
	return self, nil
}

func selfOf(st *ipnstate.Status) (Self, error) {
	if st.BackendState != ipn.Running.String() || st.Self == nil || len(st.TailscaleIPs) == 0 {
		return Self{}, fmt.Errorf("%w: its state is %s", ErrNotRunning, st.BackendState)
	}
	return Self{
		Node:      nodeOf(st.Self),
		IPs:       slices.Clone(st.TailscaleIPs),
		Userspace: !st.TUN,
	}, nil
}

// memo is Self for callers on the path of every request.
func (c *Client) memo(ctx context.Context) (selfMemo, error) {
	c.mu.Lock()
	m := c.self
	c.mu.Unlock()
	if !m.at.IsZero() && time.Since(m.at) < selfFresh {
		return m, nil
	}
	st, err := c.local.StatusWithoutPeers(ctx)
	if err != nil {
		return selfMemo{}, fmt.Errorf("ask tailscaled for this node: %w", err)
	}
	self, err := selfOf(st)
	if err != nil {
		return selfMemo{}, err
	}
	m = selfMemo{id: self.ID, ips: self.IPs, userspace: self.Userspace, at: time.Now()}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.self = m
	return m, nil
}

// Peers returns the nodes that this one may see, those thought online first and
// then by name.
func (c *Client) Peers(ctx context.Context) ([]Peer, error) {
	st, err := c.local.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask tailscaled for peers: %w", err)
	}
	if st.BackendState != ipn.Running.String() {
		return nil, fmt.Errorf("ask tailscaled for peers: %w: its state is %s", ErrNotRunning, st.BackendState)
	}
	peers := make([]Peer, 0, len(st.Peer))
	for _, p := range st.Peer {
		peers = append(peers, Peer{Node: nodeOf(p), Online: p.Online, HostKeys: p.SSH_HostKeys})
	}
	slices.SortFunc(peers, func(a, b Peer) int {
		if a.Online != b.Online {
			if a.Online {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return peers, nil
}

// Peer returns the peer with this stable node id, or [ErrNoPeer].
func (c *Client) Peer(ctx context.Context, id string) (Peer, error) {
	peers, err := c.Peers(ctx)
	if err != nil {
		return Peer{}, err
	}
	for _, p := range peers {
		if p.ID == id {
			return p, nil
		}
	}
	return Peer{}, fmt.Errorf("%w has the id %s", ErrNoPeer, id)
}

func nodeOf(p *ipnstate.PeerStatus) Node {
	n := named(string(p.ID), p.DNSName)
	n.Addr = firstAddr(slices.Values(p.TailscaleIPs))
	n.Tags = sortedTags(p.Tags)
	return n
}

func named(id, dnsName string) Node {
	fqdn, _ := dnsname.ToFQDN(dnsName) // a name that is none leaves both empty
	return Node{
		ID:   id,
		Name: dnsname.FirstLabel(fqdn.WithoutTrailingDot()),
		FQDN: fqdn.WithoutTrailingDot(),
	}
}

// firstAddr returns the first IPv4 address, or else the first of any kind.
func firstAddr(addrs func(yield func(netip.Addr) bool)) (first netip.Addr) {
	for a := range addrs {
		if a.Is4() {
			return a
		}
		if !first.IsValid() {
			first = a
		}
	}
	return first
}

func sortedTags(tags *views.Slice[string]) []string {
	if tags == nil {
		return nil
	}
	return slices.Sorted(slices.Values(tags.AsSlice()))
}
