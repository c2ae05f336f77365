package tailnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

const (
	logoutTimeout = 3 * time.Second
	leaveTimeout  = logoutTimeout + 3*time.Second
)

// Membership is this host's place on the tailnet and what of it is ours to
// undo. It is plain data: written down as JSON, it lets another process leave.
type Membership struct {
	Socket   string  `json:"socket"`    // tailscaled's; empty: the platform's own
	LoggedIn bool    `json:"logged_in"` // Join logged this host in
	Daemon   *Daemon `json:"daemon"`    // nil: tailscaled is not ours
}

// Client returns a client of the tailscaled behind the membership.
func (m *Membership) Client() *Client { return New(m.Socket) }

// settleTimeout is what a login that was broken off gets to be known to this host.
const settleTimeout = 500 * time.Millisecond

// settle waits a moment for a login under way: the tailnet may have taken the node in
// already while tailscaled has not heard of it yet, and could not log it out.
func (m *Membership) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for {
		st, err := m.Client().local.StatusWithoutPeers(ctx)
		if err != nil || st.HaveNodeKey {
			return
		}
		if sleep(ctx, 20*time.Millisecond) != nil {
			return
		}
	}
}

// ErrLingers says that this host has left the tailnet, which could not be told so: it
// forgets the node, which is ephemeral, by itself.
var ErrLingers = errors.New("the tailnet was not told, and forgets the node by itself some minutes from now")

// Leave undoes what [Join] did: logs out, which takes an ephemeral node off the
// tailnet at once, ends the tailscaled that Join started and removes its files.
// It takes 6 s at most, does all it can whatever fails, and does nothing the
// second time. The error wraps [ErrLingers] if all that is ours is undone.
func (m *Membership) Leave(ctx context.Context) error {
	var errs []error
	var untold error // why the tailnet was not told, where it is no matter of this host
	if m.LoggedIn && (m.Daemon == nil || m.Daemon.Alive()) {
		bounded, cancel := context.WithTimeout(ctx, logoutTimeout)
		defer cancel()
		m.settle(bounded)
		err := m.Client().local.Logout(bounded)
		switch {
		case err == nil:
		case m.Daemon == nil: // it goes on as it is
			errs = append(errs, fmt.Errorf("log out of the tailnet: %w", err))
		case m.Daemon.Alive(): // a dead one is logged out enough
			untold = fmt.Errorf("leave the tailnet: %w: %w", ErrLingers, err)
		}
	}
	if m.Daemon != nil {
		err := m.Daemon.end(context.WithoutCancel(ctx)) // bounded by itself
		if err == nil && m.Socket != "" {
			if rm := os.Remove(m.Socket); rm != nil && !errors.Is(rm, os.ErrNotExist) {
				err = rm
			}
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("leave the tailnet: %w", err)
	}
	m.LoggedIn, m.Daemon = false, nil
	return untold
}
