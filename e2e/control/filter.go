package control

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"tailscale.com/tailcfg"
)

// ports is one entry of a grant's ip list. A nil proto means TCP, UDP and ICMP.
type ports struct {
	proto []int
	rng   tailcfg.PortRange
}

func parsePorts(s string) (ports, error) {
	var p ports
	rest := s
	if proto, after, ok := strings.Cut(s, ":"); ok {
		numbers := map[string][]int{"tcp": {6}, "udp": {17}, "icmp": {1, 58}}
		if p.proto, ok = numbers[proto]; !ok {
			return p, fmt.Errorf("ip %q: protocol %q is not tcp, udp or icmp", s, proto)
		}
		rest = after
	}
	if rest == "*" {
		p.rng = tailcfg.PortRangeAny
		return p, nil
	}
	first, last, ok := strings.Cut(rest, "-")
	if !ok {
		last = first
	}
	a, err1 := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	if err1 != nil || err2 != nil || a > b {
		return p, fmt.Errorf("ip %q: want \"*\", a port or FIRST-LAST", s)
	}
	p.rng = tailcfg.PortRange{First: uint16(a), Last: uint16(b)}
	return p, nil
}

// filterFor returns the packet filter of n: what n accepts, from whom, and
// which application capabilities n sees on its peers.
func (p Policy) filterFor(n *node, all []*node) []tailcfg.FilterRule {
	var rules []tailcfg.FilterRule
	for _, g := range p.Grants {
		if !n.matches(g.Dst) {
			continue
		}
		var srcs []string
		for _, peer := range all {
			if !peer.matches(g.Src) {
				continue
			}
			for _, a := range peer.wire.Addresses {
				srcs = append(srcs, a.Addr().String())
			}
		}
		if len(srcs) == 0 {
			continue // an empty list of sources is not "nobody" on the wire
		}
		for _, ip := range g.IP {
			ps, err := parsePorts(ip)
			if err != nil {
				continue // can't be: Validate saw it
			}
			rule := tailcfg.FilterRule{SrcIPs: srcs, IPProto: ps.proto}
			for _, a := range n.wire.Addresses {
				rule.DstPorts = append(rule.DstPorts, tailcfg.NetPortRange{IP: a.Addr().String(), Ports: ps.rng})
			}
			rules = append(rules, rule)
		}
		if len(g.App) > 0 {
			caps := tailcfg.PeerCapMap{}
			for name, values := range g.App {
				for _, v := range values {
					caps[tailcfg.PeerCapability(name)] = append(caps[tailcfg.PeerCapability(name)], tailcfg.RawMessage(v))
				}
			}
			rules = append(rules, tailcfg.FilterRule{
				SrcIPs:   srcs,
				CapGrant: []tailcfg.CapGrant{{Dsts: append([]netip.Prefix(nil), n.wire.Addresses...), CapMap: caps}},
			})
		}
	}
	return rules
}

// sees reports whether a grant joins a and b in either direction. Nodes that
// have nothing to do with each other are not in each other's netmap.
func (p Policy) sees(a, b *node) bool {
	for _, g := range p.Grants {
		if a.matches(g.Src) && b.matches(g.Dst) || b.matches(g.Src) && a.matches(g.Dst) {
			return true
		}
	}
	return false
}

// sshFor returns who may log in on n over Tailscale SSH. It is never nil: nil
// would mean "unchanged" to the node.
func (p Policy) sshFor(n *node, all []*node) *tailcfg.SSHPolicy {
	policy := &tailcfg.SSHPolicy{}
	for _, r := range p.SSH {
		if !n.matches(r.Dst) {
			continue
		}
		var principals []*tailcfg.SSHPrincipal
		for _, peer := range all {
			if peer.matches(r.Src) {
				principals = append(principals, &tailcfg.SSHPrincipal{Node: peer.wire.StableID})
			}
		}
		if len(principals) == 0 {
			continue
		}
		users := map[string]string{}
		for _, u := range r.Users {
			if u != "autogroup:nonroot" {
				users[u] = u
				continue
			}
			users["*"] = "=" // any other name stands for itself
			if _, ok := users["root"]; !ok {
				users["root"] = ""
			}
		}
		policy.Rules = append(policy.Rules, &tailcfg.SSHRule{
			Principals: principals,
			SSHUsers:   users,
			Action:     &tailcfg.SSHAction{Accept: true},
			AcceptEnv:  r.AcceptEnv,
		})
	}
	return policy
}
