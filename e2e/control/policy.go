package control

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tailscale/hujson"
)

// DefaultPolicyText is the policy that the action's first version asked its
// users to set, as they would have pasted it: who has it keeps it. What users
// are asked to set now allows less; see package docs.
//
//go:embed policy.hujson
var DefaultPolicyText string

// Policy says who may reach whom. It is the part of Tailscale's policy file
// that the lab understands; whatever no grant allows is denied.
//
// A selector in src or dst is one of: "*", "tag:NAME", "autogroup:member" (nodes
// without tags), "autogroup:tagged", a login name, an IP address or prefix, or
// the name of a node, which stands for the "hosts" section of a real policy.
type Policy struct {
	Grants    []Grant             `json:"grants"`
	SSH       []SSHRule           `json:"ssh,omitempty"`
	TagOwners map[string][]string `json:"tagOwners,omitempty"`
}

// Grant lets the nodes of Src reach those of Dst.
type Grant struct {
	Src []string `json:"src"`
	Dst []string `json:"dst"`
	// IP lists "*", "PORTS" or "PROTO:PORTS", where PORTS is "*", a port or
	// "FIRST-LAST" and PROTO is tcp, udp or icmp. Without it the grant opens no
	// port and only carries App.
	IP []string `json:"ip,omitempty"`
	// App holds the values of each application capability that Dst sees on
	// Src through WhoIs.
	App map[string][]json.RawMessage `json:"app,omitempty"`
}

// SSHRule lets the nodes of Src log in over Tailscale SSH on those of Dst.
type SSHRule struct {
	Src []string `json:"src"`
	Dst []string `json:"dst"`
	// Users are names of local users, "autogroup:nonroot" being all but root.
	Users []string `json:"users"`
	// Action is "accept", the only one that needs no browser.
	Action    string   `json:"action"`
	AcceptEnv []string `json:"acceptEnv,omitempty"`
}

// DefaultPolicy returns a copy of [DefaultPolicyText], ready to be added to.
func DefaultPolicy() (Policy, error) {
	return ParsePolicy([]byte(DefaultPolicyText))
}

// ParsePolicy reads a policy file: JSON with comments and trailing commas. A
// section or a field that the lab would silently not honour is an error.
func ParsePolicy(text []byte) (Policy, error) {
	std, err := hujson.Standardize(bytes.Clone(text)) // it writes to what it is given
	if err != nil {
		return Policy{}, fmt.Errorf("parse policy: %w", err)
	}
	var p Policy
	dec := json.NewDecoder(bytes.NewReader(std))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		return Policy{}, fmt.Errorf("parse policy: %w", err)
	}
	return p, p.Validate()
}

// Validate reports the first rule that can't be applied.
func (p Policy) Validate() error {
	for i, g := range p.Grants {
		if len(g.Src) == 0 || len(g.Dst) == 0 {
			return fmt.Errorf("policy: grants[%d]: src and dst must not be empty", i)
		}
		for _, ip := range g.IP {
			if _, err := parsePorts(ip); err != nil {
				return fmt.Errorf("policy: grants[%d]: %w", i, err)
			}
		}
		if err := p.checkTags(slices.Concat(g.Src, g.Dst)); err != nil {
			return fmt.Errorf("policy: grants[%d]: %w", i, err)
		}
	}
	for i, r := range p.SSH {
		if r.Action != "accept" {
			return fmt.Errorf("policy: ssh[%d]: action %q is not supported: use \"accept\"", i, r.Action)
		}
		if err := p.checkTags(slices.Concat(r.Src, r.Dst)); err != nil {
			return fmt.Errorf("policy: ssh[%d]: %w", i, err)
		}
	}
	return nil
}

// checkTags refuses a tag that nobody owns, as the real service does: it is
// nearly always a typing error.
func (p Policy) checkTags(selectors []string) error {
	for _, s := range selectors {
		if _, ok := p.TagOwners[s]; !ok && strings.HasPrefix(s, "tag:") {
			return fmt.Errorf("%s is not in tagOwners", s)
		}
	}
	return nil
}

// matches reports whether one of the selectors names n.
func (n *node) matches(selectors []string) bool {
	return slices.ContainsFunc(selectors, func(s string) bool {
		switch {
		case s == "*":
			return true
		case strings.HasPrefix(s, "tag:"):
			return slices.Contains(n.wire.Tags, s)
		case s == "autogroup:member":
			return len(n.wire.Tags) == 0
		case s == "autogroup:tagged":
			return len(n.wire.Tags) > 0
		case s == n.label:
			return true
		case s == n.login && len(n.wire.Tags) == 0:
			return true
		}
		if pfx, err := netip.ParsePrefix(s); err == nil {
			return slices.ContainsFunc(n.wire.Addresses, func(a netip.Prefix) bool { return pfx.Contains(a.Addr()) })
		}
		ip, err := netip.ParseAddr(s)
		return err == nil && slices.ContainsFunc(n.wire.Addresses, func(a netip.Prefix) bool { return a.Addr() == ip })
	})
}
