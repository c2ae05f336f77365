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
	meetRest = 200 * time.Millisecond // for a node that has just joined to reach its relay
)

// meet waits until a peer answers Tailscale's own path discovery, for meetTime at most,
// and then leaves it to the connection to say what is wrong.
//
// WireGuard repeats the first message of a handshake only after 5 s (its
// REKEY-TIMEOUT), so whoever loses one of the two messages to having just joined loses 5 s
// that discovery does not: its messages can be sent as often as one likes.
//
//   - A peer that has not heard of this node yet drops the first message. It answers
//     discovery only once it has heard of us.
//   - A peer that has not found a path to this node yet, as it has not had to, sends its
//     answer by the relay, and this node may not be connected to that yet: after the
//     first answer to discovery it gets meetRest. Without it, 13 of 140 gatherings of three
//     hosts took 5 s longer; with it, none of 100.
func (c *Client) meet(ctx context.Context, addr netip.Addr) {
	ctx, cancel := context.WithTimeout(ctx, meetTime)
	defer cancel()
	for {
		one, done := context.WithTimeout(ctx, meetPing)
		pong, err := c.local.Ping(one, addr, tailcfg.PingDisco)
		done()
		if local.IsAccessDeniedError(err) {
			return
		}
		if err == nil && pong.Err == "" {
			_ = sleep(ctx, meetRest) // what ends it early ends the dial too
			return
		}
		if sleep(ctx, 20*time.Millisecond) != nil {
			return
		}
	}
}
