package control

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/dnstype"
	"tailscale.com/types/key"
	"tailscale.com/util/zstdframe"
)

// serveMap answers both kinds of map request: an update of what a node says
// about itself, and the long poll over which it hears of the tailnet.
func (s *Server) serveMap(w http.ResponseWriter, r *http.Request) {
	var req tailcfg.MapRequest
	if err := json.NewDecoder(io.LimitReader(r.Body, requestLimit)).Decode(&req); err != nil {
		http.Error(w, "map: "+err.Error(), http.StatusBadRequest)
		return
	}
	if !req.Stream {
		if r.Context().Err() == nil { // a cancelled update may be older than one already applied
			if !s.reg.update(&req, machineOf(r)) {
				http.Error(w, "node not found", http.StatusNotFound)
				return
			}
		}
		if req.OmitPeers {
			return // 200 is the whole answer
		}
	}

	out := mapWriter{w: w, compress: req.Compress != ""}
	if !req.Stream {
		if res, _ := s.reg.mapResponse(req.NodeKey, s.static()); res != nil {
			out.send(res)
		}
		return
	}
	if poll := s.reg.open(req.NodeKey, machineOf(r)); poll != nil {
		defer s.reg.closePoll(req.NodeKey, poll)
		if err := s.stream(r.Context(), out, req.NodeKey, poll); err != nil {
			s.cfg.Logf("map poll of %s: %v", req.NodeKey.ShortString(), err)
			return
		}
	}
	if bye := s.reg.farewell(req.NodeKey); bye != nil {
		out.send(bye)
	} else {
		http.Error(w, "node not found", http.StatusNotFound)
	}
}

// stream sends the node's view of the tailnet, and again at each change, until
// the node goes away, opens another poll or is removed.
func (s *Server) stream(ctx context.Context, out mapWriter, k key.NodePublic, poll <-chan struct{}) error {
	keepAlive := time.NewTicker(s.cfg.KeepAlive)
	defer keepAlive.Stop()
	var told peerSet
	for {
		res, changed := s.reg.mapResponse(k, s.static())
		if res == nil {
			return nil
		}
		told.reduce(res)
		if err := out.send(res); err != nil {
			return err
		}
	idle:
		for {
			select {
			case <-changed:
				break idle
			case <-keepAlive.C:
				if err := out.send(&tailcfg.MapResponse{KeepAlive: true}); err != nil {
					return err
				}
			case <-poll:
				return nil
			case <-ctx.Done():
				return nil
			case <-s.ctx.Done():
				return nil
			}
		}
	}
}

// peerSet is what a node was told of its peers. An empty list of peers means
// "unchanged" on the wire, so a peer that goes has to be named.
type peerSet map[tailcfg.NodeID]*tailcfg.Node

// reduce turns the full list of peers into what changed since the last one.
func (told *peerSet) reduce(res *tailcfg.MapResponse) {
	first := *told == nil
	now := peerSet{}
	for _, p := range res.Peers {
		now[p.ID] = p
		if !p.Equal((*told)[p.ID]) {
			res.PeersChanged = append(res.PeersChanged, p)
		}
	}
	for id := range *told {
		if now[id] == nil {
			res.PeersRemoved = append(res.PeersRemoved, id)
		}
	}
	*told = now
	if first {
		res.PeersChanged = nil
	} else {
		res.Peers = nil
	}
}

// static is the part of a map response that is the same for every node.
func (s *Server) static() tailcfg.MapResponse {
	return tailcfg.MapResponse{
		Domain:  s.cfg.Domain,
		DERPMap: s.relay.derpMap,
		DNSConfig: &tailcfg.DNSConfig{
			Proxied: true,
			Domains: []string{s.cfg.Domain},
			Routes:  map[string][]*dnstype.Resolver{s.cfg.Domain: nil},
		},
		CollectServices: "false",
	}
}

// update applies what a node says about itself. It reports whether the node is
// known.
func (r *registry) update(req *tailcfg.MapRequest, machine key.MachinePublic) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.nodes[req.NodeKey]
	if n == nil || n.wire.Machine != machine {
		return false
	}
	n.wire.Endpoints = req.Endpoints
	n.wire.DiscoKey = req.DiscoKey
	n.wire.Cap = req.Version
	if req.Hostinfo != nil {
		r.setHostinfoLocked(n, req.Hostinfo)
	}
	r.notifyLocked()
	return true
}

// open makes the node online. The channel it returns is closed when the poll
// must end; nil means that there is no such node.
func (r *registry) open(k key.NodePublic, machine key.MachinePublic) chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.nodes[k]
	if n == nil || n.expired || n.wire.Machine != machine {
		return nil
	}
	n.endPollLocked() // one poll a node: the newer is the one it reads
	n.cancelExpiryLocked()
	n.poll = make(chan struct{})
	r.notifyLocked()
	return n.poll
}

// closePoll makes the node offline, unless it has opened another poll since.
func (r *registry) closePoll(k key.NodePublic, poll chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.nodes[k]
	if n == nil || n.poll != poll {
		return
	}
	r.logf("node %s went offline", n.label)
	n.poll = nil
	n.wire.LastSeen = new(time.Now().UTC())
	r.expireLaterLocked(n)
	r.notifyLocked()
}

// farewell tells a node that was removed or has logged out that its key is worth
// nothing any more, upon which it wants to be logged in anew. For any other node
// it returns nil.
func (r *registry) farewell(k key.NodePublic) *tailcfg.MapResponse {
	r.mu.Lock()
	defer r.mu.Unlock()
	wire := r.gone[k]
	if n := r.nodes[k]; n != nil && n.expired {
		wire = n.wire
	}
	if wire == nil {
		return nil
	}
	self := wire.Clone()
	self.KeyExpiry = time.Now().Add(-time.Minute).UTC()
	return &tailcfg.MapResponse{Node: self}
}

// mapResponse fills in the node's own view of the tailnet, and returns a
// channel that is closed when that view may be out of date. It returns nil for
// a node that is gone.
func (r *registry) mapResponse(k key.NodePublic, res tailcfg.MapResponse) (*tailcfg.MapResponse, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.nodes[k]
	if n == nil || n.expired {
		return nil, nil
	}
	all := r.sortedLocked()

	self := n.wire.Clone()
	self.CapMap = tailcfg.NodeCapMap{
		tailcfg.CapabilitySSH:                   nil,
		tailcfg.NodeAttrDisableUPnP:             nil,
		tailcfg.NodeAttrSSHEnvironmentVariables: nil,
	}
	res.Node = self
	users := map[tailcfg.UserID]tailcfg.UserProfile{self.User: userOf(n)}
	for _, peer := range all {
		approved := n.wire.MachineAuthorized && peer.wire.MachineAuthorized
		if peer == n || peer.expired || !approved || !r.policy.sees(n, peer) {
			continue
		}
		p := peer.wire.Clone()
		p.Online = new(peer.poll != nil)
		res.Peers = append(res.Peers, p)
		users[p.User] = userOf(peer)
	}
	for _, u := range users {
		res.UserProfiles = append(res.UserProfiles, u)
	}
	// "*": nil takes all earlier rules away, so that no rule at all is told too.
	res.PacketFilters = map[string][]tailcfg.FilterRule{"*": nil}
	if rules := r.policy.filterFor(n, all); len(rules) > 0 {
		res.PacketFilters["policy"] = rules
	}
	res.SSHPolicy = r.policy.sshFor(n, all)
	res.ControlTime = new(time.Now().UTC())
	return &res, r.changed
}

// mapWriter frames map responses: the length in four bytes, little endian, then
// JSON, compressed if the node asked for it.
type mapWriter struct {
	w        http.ResponseWriter
	compress bool
}

func (m mapWriter) send(res *tailcfg.MapResponse) error {
	body, err := json.Marshal(res)
	if err != nil {
		return err
	}
	if m.compress {
		body = zstdframe.AppendEncode(nil, body, zstdframe.FastestCompression)
	}
	frame := binary.LittleEndian.AppendUint32(nil, uint32(len(body)))
	if _, err := m.w.Write(append(frame, body...)); err != nil {
		return err
	}
	return http.NewResponseController(m.w).Flush()
}
