package tailnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"tailscale.com/client/local"
	"tailscale.com/client/tailscale/apitype"
	"tailscale.com/tailcfg"
)

// Capability is the name of the application capability with which a tailnet
// policy grants people and nodes calls of the API. Its value is
// {"allow": ["read", "stop"]}.
const Capability tailcfg.PeerCapability = "github.com/misaka13514/cap/nix-builders"

// Words of a [Capability]'s allow list. Others are ignored.
const (
	CapRead = "read"
	CapStop = "stop"
)

// ErrUnknownCaller says that the tailnet knows nobody behind an address.
var ErrUnknownCaller = errors.New("the tailnet does not know the caller")

// mappingWait bounds the wait for tailscaled to say whom a forwarded connection
// belongs to.
const mappingWait = time.Second

// Caller is who is behind a connection, as the tailnet says.
type Caller struct {
	Node
	User string   // login name of the owner; empty for a tagged node
	Caps []string // union of the allow lists granted to it, sorted
	Self bool     // this host's own node
}

// WhoIs returns who is behind a remote address, IP:PORT, of a connection to one
// of [Listening.Tailnet].
//
// Ask once the caller has sent something: with userspace networking tailscaled
// learns whom a connection belongs to only after it was accepted. The error is
// [ErrUnknownCaller] if the tailnet knows nobody there.
func (c *Client) WhoIs(ctx context.Context, remoteAddr string) (Caller, error) {
	self, err := c.memo(ctx)
	if err != nil {
		return Caller{}, fmt.Errorf("who is %s: %w", remoteAddr, err)
	}
	who, err := c.whoIs(ctx, remoteAddr)
	if errors.Is(err, local.ErrPeerNotFound) {
		return Caller{}, fmt.Errorf("who is %s: %w", remoteAddr, ErrUnknownCaller)
	}
	if err != nil {
		return Caller{}, fmt.Errorf("who is %s: %w", remoteAddr, err)
	}
	if who.Node == nil || who.Node.StableID == "" {
		return Caller{}, fmt.Errorf("who is %s: %w", remoteAddr, ErrUnknownCaller)
	}
	caller := Caller{
		Node: named(string(who.Node.StableID), who.Node.Name),
		Caps: allowed(who.CapMap),
		Self: string(who.Node.StableID) == self.id,
	}
	caller.Addr = firstAddr(func(yield func(netip.Addr) bool) {
		for _, p := range who.Node.Addresses {
			if !yield(p.Addr()) {
				return
			}
		}
	})
	caller.Tags = slices.Sorted(slices.Values(who.Node.Tags))
	if len(caller.Tags) == 0 && who.UserProfile != nil {
		caller.User = who.UserProfile.LoginName
	}
	return caller, nil
}

// whoIs asks again for a while about an address that tailscaled forwards from,
// as it registers those late (tailscale/tailscale#1616).
func (c *Client) whoIs(ctx context.Context, remoteAddr string) (*apitype.WhoIsResponse, error) {
	ap, err := netip.ParseAddrPort(remoteAddr)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(mappingWait)
	for pause := 10 * time.Millisecond; ; pause *= 2 {
		who, err := c.local.WhoIs(ctx, remoteAddr)
		if !errors.Is(err, local.ErrPeerNotFound) || !ap.Addr().IsLoopback() || time.Now().Add(pause).After(deadline) {
			return who, err
		}
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
	}
}

// allowed returns the known words that the policy grants. A value that can't be
// read grants nothing, and takes nothing away from the others.
func allowed(caps tailcfg.PeerCapMap) []string {
	granted := map[string]bool{}
	for _, raw := range caps[Capability] {
		var value struct {
			Allow []string `json:"allow"`
		}
		if json.Unmarshal([]byte(raw), &value) != nil {
			continue
		}
		for _, word := range value.Allow {
			if word == CapRead || word == CapStop {
				granted[word] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(granted))
}

// sleep waits for d, or returns why ctx ended.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
