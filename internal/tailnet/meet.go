package tailnet

import (
	"context"
	"net/netip"
	"time"

	"tailscale.com/client/local"
	"tailscale.com/tailcfg"
)

const (
	meetTime = 2 * time.Second        // for two nodes to hear of each other
	meetPing = 150 * time.Millisecond // for one answer
)

// meet waits until a peer answers Tailscale's own path discovery, for meetTime at most,
// and then leaves it to the connection to say what is wrong.
//
// WireGuard repeats the first message of a handshake only after 5 s (its
// REKEY-TIMEOUT). A peer that has not heard of this node yet, as is common when both
// have just joined, drops that message, and a connection that could be there at once
// takes 5 s. Discovery messages can be sent as often as one likes, and are answered
// only by a peer that knows us.
func (c *Client) meet(ctx context.Context, addr netip.Addr) {
	ctx, cancel := context.WithTimeout(ctx, meetTime)
	defer cancel()
	for {
		one, done := context.WithTimeout(ctx, meetPing)
		pong, err := c.local.Ping(one, addr, tailcfg.PingDisco)
		done()
		if err == nil && pong.Err == "" || local.IsAccessDeniedError(err) {
			return
		}
		if sleep(ctx, 20*time.Millisecond) != nil {
			return
		}
	}
}
