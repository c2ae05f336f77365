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

// Leave undoes what [Join] did: logs out, which takes an ephemeral node off the
// tailnet at once, ends the tailscaled that Join started and removes its files.
// It takes 6 s at most, does all it can whatever fails, and does nothing the
// second time.
func (m *Membership) Leave(ctx context.Context) error {
	var errs []error
	if m.LoggedIn && (m.Daemon == nil || m.Daemon.Alive()) {
		bounded, cancel := context.WithTimeout(ctx, logoutTimeout)
		defer cancel()
		err := m.Client().local.Logout(bounded)
		if err != nil && (m.Daemon == nil || m.Daemon.Alive()) { // a dead one is logged out enough
			errs = append(errs, fmt.Errorf("log out of the tailnet: %w", err))
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
	return nil
}
