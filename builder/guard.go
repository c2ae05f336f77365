package builder

import (
	"fmt"
	"sync"
	"time"
)

// guard says whose builds may run here. It opens this builder to its coordinator as long as
// that acknowledges what is asked of it, and closes it when a lease has passed without: from
// then on the coordinator takes this builder for lost, and builds elsewhere what it had sent.
// A nil guard does nothing.
type guard struct {
	open  func(at Candidate, key string)
	close func(reason string)
	say   func(format string, args ...any)

	mu    sync.Mutex // held while they are called, so that they come in order
	timer *time.Timer
	at    Candidate     // to whom it is open, or was
	key   string        // of the last ticket
	lease time.Duration // of the last ticket
	until time.Time     // when it closes
	isOff bool          // it is closed
	over  bool          // for good
}

// guard gives a guard, or nil if nobody wants one.
func (a *Agent) guard() *guard {
	if a.Serve == nil || a.Fence == nil {
		return nil
	}
	return &guard{open: a.Serve, close: a.Fence, say: a.say, isOff: true}
}

// heard is told of a claim whose coordinator has just acknowledged something.
func (g *guard) heard(c *claim) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lease, g.until = c.ticket.lease, c.heard.Add(c.ticket.lease)
	left := time.Until(g.until)
	if g.over || left <= 0 { // the answer came when it was too late
		return
	}
	if g.timer == nil {
		g.timer = time.AfterFunc(left, g.expire)
	} else {
		g.timer.Reset(left)
	}
	if g.isOff && g.at == c.at {
		g.say("the coordinator is heard again")
	}
	if g.isOff || g.at != c.at || g.key != c.ticket.key {
		g.isOff, g.at, g.key = false, c.at, c.ticket.key
		g.open(c.at, g.key)
	}
}

// expire closes this builder when the lease has passed.
func (g *guard) expire() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if left := time.Until(g.until); left > 0 { // it was heard just now
		g.timer.Reset(left)
		return
	}
	if !g.isOff && !g.over {
		g.say("the coordinator was not heard for %v: ending what it has begun here", g.lease)
	}
	g.offLocked(fmt.Sprintf("its coordinator was not heard for %v", g.lease))
}

// end closes this builder for good.
func (g *guard) end(reason string) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.offLocked(reason)
	g.over = true
	if g.timer != nil {
		g.timer.Stop()
	}
}

func (g *guard) offLocked(reason string) {
	if g.isOff || g.over {
		return
	}
	g.isOff = true
	g.close(reason)
}
