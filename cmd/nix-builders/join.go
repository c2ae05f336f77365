package main

import (
	"context"
	"errors"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/rundir"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/tailnet"
)

// memberFile is where a member's directory keeps what Leave needs.
const memberFile = "member.json"

// leaveBound is what leaving the tailnet may take at the end of a signalled process.
const leaveBound = 4 * time.Second

// join makes this host a member of the tailnet with the tag, and notes in d how to
// leave again.
func (a *app) join(ctx context.Context, d *rundir.Dir, tag string) (*tailnet.Membership, error) {
	t := a.set.Tailnet
	key, err := t.authKey()
	if err != nil {
		return nil, err
	}
	tags := t.Tags
	if len(tags) == 0 {
		tags = words{tag}
	}
	m, err := tailnet.Join(ctx, tailnet.JoinOptions{
		Hostname:     t.Hostname,
		Tags:         tags,
		AuthKey:      key,
		LoginServer:  t.LoginServer,
		Networking:   tailnet.Networking(t.Networking),
		SSH:          true,
		AcceptRoutes: true,
		Socket:       t.TailscaleSocket,
		StateDir:     d.Path(""),
		Ephemeral:    true,
		NoLogs:       !t.TailscaledLogs,
		Tailscale:    t.Tailscale,
		Tailscaled:   t.Tailscaled,
		Timeout:      time.Duration(t.JoinTimeout),
		Log:          a.log,
	})
	if err != nil {
		return nil, err
	}
	// An earlier process may have joined and died: what it did is still to be undone.
	var earlier tailnet.Membership
	if d.Load(memberFile, &earlier) == nil && !m.LoggedIn && m.Daemon == nil {
		m = &earlier
	}
	if err := d.Save(memberFile, 0o600, m); err != nil {
		return nil, errors.Join(err, a.leaveTailnet(m))
	}
	return m, nil
}

// leaveTailnet undoes join. It runs when the command's own context has ended.
func (a *app) leaveTailnet(m *tailnet.Membership) error {
	ctx, cancel := context.WithTimeout(context.Background(), leaveBound)
	defer cancel()
	return m.Leave(ctx)
}

// client asks the tailscaled that the settings mean.
func (s *settings) client() *tailnet.Client { return tailnet.New(s.Tailnet.TailscaleSocket) }
