package tailnet

import (
	"context"
	"fmt"
	"sync"
	"time"

	"tailscale.com/tailcfg"
)

const (
	greetEvery = 200 * time.Millisecond // how often Greet looks for newcomers
	greetTime  = 2 * time.Second        // for one greeting
	greetMost  = 32                     // greetings at a time
)

// Greet reaches out to each peer that want picks, once, as soon as the tailnet shows it,
// for as long as more says that some are awaited, and returns when ctx ends.
//
// It makes up for a race in which newcomers lose five seconds. A node that has just joined
// knows us before our tailscaled has been told of it. If it calls in between, WireGuard
// drops its handshake as a stranger's, and the node does not begin another for 5 s. A
// handshake that we begin, once we have been told, is one that it answers at once.
func (c *Client) Greet(ctx context.Context, want func(Peer) bool, more func() bool) {
	tick := time.NewTicker(greetEvery)
	defer tick.Stop()
	var greeting sync.WaitGroup
	defer greeting.Wait()
	greeted := make(map[string]bool) // by id; also those that did not answer: they may call by themselves
	slots := make(chan struct{}, greetMost)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !more() {
			continue
		}
		looking, cancel := context.WithTimeout(ctx, greetTime)
		peers, err := c.Peers(looking)
		cancel()
		if err != nil {
			continue // it is for speed only, and others will say what is wrong
		}
		for _, p := range peers {
			if greeted[p.ID] || !want(p) {
				continue
			}
			select {
			case slots <- struct{}{}:
			default:
				continue // at the next look
			}
			greeted[p.ID] = true
			greeting.Go(func() {
				defer func() { <-slots }()
				_ = c.greet(ctx, p)
			})
		}
	}
}

// greet exchanges a packet with the peer. It is one of Tailscale's own, which no policy
// stops and no service has to answer.
func (c *Client) greet(ctx context.Context, p Peer) error {
	ctx, cancel := context.WithTimeout(ctx, greetTime)
	defer cancel()
	res, err := c.local.Ping(ctx, p.Addr, tailcfg.PingTSMP)
	if err != nil {
		return fmt.Errorf("greet %s: %w", p.Name, err)
	}
	if res.Err != "" {
		return fmt.Errorf("greet %s: %s", p.Name, res.Err)
	}
	return nil
}
