package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/proc"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/rundir"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/tailnet"
)

// What a member's directory keeps of its place on the tailnet.
const (
	memberFile  = "member.json"  // what leaving needs
	processFile = "process.json" // who runs the role
)

// leaveBound is what leaving the tailnet may take at the end of a signalled process.
const leaveBound = 4 * time.Second

// claim takes the directory of this host's member for this process.
func (a *app) claim(role string) (*rundir.Dir, error) {
	self, err := proc.Of(os.Getpid())
	if err != nil {
		return nil, fmt.Errorf("find this process: %w", err)
	}
	d := rundir.At(a.set.Files.StateDir, a.set.Cluster.Cluster, role)
	var other proc.ID
	if d.Load(processFile, &other) == nil && other != self && other.Alive() {
		// It would lose its place, and this one the tailnet that the other leaves.
		return nil, fmt.Errorf("cluster %s already has its %s here (pid %d)", a.set.Cluster.Cluster, role, other.PID)
	}
	if d, err = a.memberDir(role); err != nil {
		return nil, err
	}
	return d, d.Save(processFile, 0o644, self)
}

// joined tells whether an earlier process joined the tailnet for the role, or is about to.
func (a *app) joined(role string) bool {
	d := rundir.At(a.set.Files.StateDir, a.set.Cluster.Cluster, role)
	if j, err := d.Joining(); err == nil {
		return j.Joined || j.Process.Alive()
	}
	return d.Has(memberFile)
}

// become makes this host what its role needs: with the Nix configuration that the user
// asked for, and on the tailnet.
func (a *app) become(ctx context.Context, d *rundir.Dir, role string) (*tailnet.Membership, error) {
	err := a.awaitJoining(ctx, d)
	if errors.Is(err, errJoinFailed) && a.canLogIn() {
		a.log.Warn("joining anew", "error", err)
		err = nil
	}
	if err != nil {
		return nil, err
	}
	if err := a.configureNix(ctx, d, role); err != nil {
		return nil, err
	}
	return a.join(ctx, d, role)
}

// canLogIn tells whether this process was given what it takes.
func (a *app) canLogIn() bool { return a.secrets.AuthKey != "" || a.secrets.IDToken != "" }

// tags are what this host is to have on the tailnet.
func (a *app) tags(role string) (words, error) {
	tag, name := a.set.Cluster.BuilderTag, "BUILDER_TAG"
	if role == rundir.Coordinator {
		tag, name = a.set.Cluster.CoordinatorTag, "COORDINATOR_TAG"
	}
	tags := a.set.Tailnet.Tags
	if len(tags) == 0 {
		return words{tag}, nil
	}
	if !slices.Contains(tags, tag) {
		return nil, fmt.Errorf("%s_TAGS: [%s] has not %s, by which a %s is known: set %s_%s (the input %s) to the tag it has, on every job of the cluster",
			prefix, strings.Join(tags, " "), tag, role, prefix, name, strings.ToLower(name))
	}
	return tags, nil
}

// join makes this host a member of the tailnet in its role, or takes over what an earlier
// process joined, and notes in d how to leave again.
func (a *app) join(ctx context.Context, d *rundir.Dir, role string) (*tailnet.Membership, error) {
	t := a.set.Tailnet
	tags, err := a.tags(role)
	if err != nil {
		return nil, err
	}
	tailscale, tailscaled, err := t.programs()
	if err != nil {
		return nil, err
	}
	// An earlier process may have joined and died: what it did is still to be undone.
	var earlier tailnet.Membership
	if err := d.Load(memberFile, &earlier); err != nil && !errors.Is(err, rundir.ErrNone) {
		return nil, err
	}
	note := func(m tailnet.Membership) error {
		m.LoggedIn = m.LoggedIn || earlier.LoggedIn
		if m.Daemon == nil && earlier.Daemon != nil && earlier.Daemon.Alive() {
			m.Daemon = earlier.Daemon
		}
		return d.Save(memberFile, 0o600, m)
	}
	clientID := t.ClientID
	if a.secrets.IDToken == "" {
		clientID = "" // somebody has logged in already
	}
	m, err := tailnet.Join(ctx, tailnet.JoinOptions{
		Hostname:     t.Hostname,
		Tags:         tags,
		AuthKey:      tailnet.Secret(a.secrets.AuthKey),
		ClientID:     clientID,
		IDToken:      tailnet.Secret(a.secrets.IDToken),
		LoginServer:  t.LoginServer,
		Networking:   tailnet.Networking(t.Networking),
		SSH:          true,
		AcceptRoutes: true,
		Socket:       t.TailscaleSocket,
		StateDir:     d.Path(""),
		Ephemeral:    true,
		NoLogs:       !t.TailscaledLogs,
		Tailscale:    tailscale,
		Tailscaled:   tailscaled,
		Timeout:      time.Duration(t.JoinTimeout),
		Log:          a.log,
		Began:        note,
	})
	if err != nil {
		return nil, err
	}
	if err := note(*m); err != nil {
		return nil, errors.Join(err, a.leaveTailnet(m))
	}
	if err := a.installTailscale(d, tailscale); err != nil {
		a.log.Warn("put tailscale on PATH", "error", err) // nothing of ours needs it there
	}
	return m, nil
}

// programs are tailscale and tailscaled: those that the settings name, else those that
// were installed beside this program, else those on PATH.
func (t *tailnetSettings) programs() (tailscale, tailscaled string, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", "", fmt.Errorf("find this program: %w", err)
	}
	beside := func(name, setting string) string {
		if path := filepath.Join(filepath.Dir(self), name); setting == name && executable(path) {
			return path
		}
		return setting
	}
	return beside("tailscale", t.Tailscale), beside("tailscaled", t.Tailscaled), nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// leaveTailnet undoes join. It runs when the command's own context has ended.
func (a *app) leaveTailnet(m *tailnet.Membership) error {
	ctx, cancel := context.WithTimeout(context.Background(), leaveBound)
	defer cancel()
	err := m.Leave(ctx)
	if errors.Is(err, tailnet.ErrLingers) {
		a.log.Warn("left the tailnet", "error", err)
		return nil
	}
	return err
}

// endMembership ends what a role had of the tailnet, and forgets all but what outlives it.
func (a *app) endMembership(d *rundir.Dir) error {
	if err := a.leaveMembership(d); err != nil {
		return err
	}
	return d.Clear(extraFile, linksFile)
}

// leaveMembership ends a joining that is under way, and leaves the tailnet.
func (a *app) leaveMembership(d *rundir.Dir) error {
	var problems []error
	switch j, err := d.Joining(); {
	case errors.Is(err, rundir.ErrNone):
	case err != nil:
		problems = append(problems, err)
	case j.Process.PID != os.Getpid():
		problems = append(problems, endProcess("process that joins the tailnet", j.Process, endBound))
	}
	// Only now: the process may just have made it.
	var m tailnet.Membership
	switch err := d.Load(memberFile, &m); {
	case errors.Is(err, rundir.ErrNone):
	case err != nil:
		problems = append(problems, err)
	default:
		problems = append(problems, a.leaveTailnet(&m))
	}
	return errors.Join(problems...)
}

// client asks the tailscaled that the settings mean.
func (s *settings) client() *tailnet.Client { return tailnet.New(s.Tailnet.TailscaleSocket) }
