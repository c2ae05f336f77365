package tailnet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"tailscale.com/client/local"
	"tailscale.com/ipn"
	"tailscale.com/ipn/ipnstate"
)

// Networking is how tailscaled reaches the host's network.
type Networking string

const (
	TUN       Networking = "tun"       // a network device; needs root
	Userspace Networking = "userspace" // inside tailscaled; the host's network is left alone
)

// JoinOptions say how [Join] makes this host a member of the tailnet.
type JoinOptions struct {
	Hostname string   // asked for; the tailnet sanitises it. Empty: any will do
	Tags     []string // that the node must have, "tag:NAME" each
	// AuthKey is an auth key or the secret of an OAuth client, as [ParseKey] reads
	// it. It is needed only when this host is not logged in yet.
	AuthKey Secret
	// ClientID is the id of a federated identity, as [ParseClientID] reads it, and
	// IDToken what the job's own platform vouches for it with. Together they stand
	// in for AuthKey.
	ClientID    string
	IDToken     Secret
	LoginServer string // base URL of the control server; empty: Tailscale's
	Networking  Networking
	SSH         bool // serve Tailscale SSH, and wait until its keys are published
	// AcceptRoutes uses the subnet routes that peers advertise.
	AcceptRoutes bool
	// Operator is a local user who may use tailscale without being root.
	Operator string

	// Socket is tailscaled's Unix socket. If empty, the platform's own.
	Socket string
	// StateDir is where a tailscaled that we start keeps its state and its log.
	StateDir string
	// Ephemeral keeps the node's keys in memory: the node is gone with its
	// daemon.
	Ephemeral bool
	// NoLogs keeps the daemon from uploading its log to Tailscale.
	NoLogs bool
	// Port is the daemon's UDP port. If 0, tailscaled's own choice.
	Port int
	// Tailscale and Tailscaled are paths, or names to be found on PATH. If
	// empty, "tailscale" and "tailscaled".
	Tailscale, Tailscaled string
	// Env is the whole environment of both, KEY=VALUE each. If nil, a PATH.
	Env []string

	Timeout time.Duration // for all of it; if zero, 90 s
	Log     *slog.Logger
	// Began, if not nil, is told what there is to undo whenever that becomes more, before
	// Join goes on: whoever writes it down can undo it though this process be killed. Its
	// error is Join's.
	Began func(Membership) error
}

// Reasons why this host can't be a member. They come wrapped in an error that
// says what to do.
var (
	ErrKeyRefused    = errors.New("the tailnet refused the key")
	ErrTagsRefused   = errors.New("the tailnet does not grant the tags")
	ErrNeedsApproval = errors.New("the tailnet wants an administrator to approve the node")
	ErrNotAllowed    = errors.New("tailscale does not take orders from this user")
	ErrNotReady      = errors.New("tailscale did not get ready in time")
	ErrWrongNode     = errors.New("tailscale already runs as another node")
	ErrTooOld        = errors.New("the installed tailscale is too old")
)

// Join makes this host a member of the tailnet and returns when it really is
// one: running, with an address, a name and its tags. Failures that may pass
// are tried again until the timeout. What was begun is undone on an error.
func Join(ctx context.Context, opts JoinOptions) (*Membership, error) {
	opts.Tailscale = cmp.Or(opts.Tailscale, "tailscale")
	opts.Tailscaled = cmp.Or(opts.Tailscaled, "tailscaled")
	opts.Networking = cmp.Or(opts.Networking, defaultNetworking())
	opts.Timeout = cmp.Or(opts.Timeout, 90*time.Second)
	if opts.Env == nil {
		opts.Env = []string{"PATH=" + defaultPath}
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	opts.LoginServer = strings.TrimRight(opts.LoginServer, "/") // paths are appended to it
	if err := opts.parseCredentials(); err != nil {
		return nil, fmt.Errorf("join the tailnet: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, opts.Timeout, fmt.Errorf("%w (%v)", ErrNotReady, opts.Timeout))
	defer cancel()

	j := &joining{JoinOptions: opts, client: New(opts.Socket), m: &Membership{Socket: opts.Socket}}
	if err := j.run(ctx); err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("join the tailnet: %w", err), j.m.Leave(undo))
	}
	return j.m, nil
}

// secretLimit is what fits into a pipe on every platform. GitHub's identity tokens have
// about 2 KiB.
const secretLimit = 12 << 10

// parseCredentials makes what a user gave what tailscale takes.
func (o *JoinOptions) parseCredentials() (err error) {
	if o.AuthKey, err = ParseKey(string(o.AuthKey)); err != nil {
		return err
	}
	if o.ClientID, err = ParseClientID(o.ClientID); err != nil {
		return err
	}
	o.IDToken = Secret(strings.TrimSpace(string(o.IDToken)))
	if len(o.AuthKey) > secretLimit || len(o.IDToken) > secretLimit {
		return errors.New("what was given as auth key or identity token is too long to be one")
	}
	if o.AuthKey != "" && o.ClientID != "" {
		return errors.New("both an auth key and a client id are given: give one of them")
	}
	return nil
}

// joining is one call of Join.
type joining struct {
	JoinOptions
	client *Client
	m      *Membership // what there is to undo
}

func (j *joining) run(ctx context.Context) error {
	st, err := j.status(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if local.IsAccessDeniedError(err) {
			return fmt.Errorf("%w: run this as root, or as tailscale's operator (%v)", ErrNotAllowed, err)
		}
		j.Log.Info("starting tailscaled", "networking", string(j.Networking), "reason", "none answers")
		d, err := startDaemon(j.JoinOptions)
		if err != nil {
			return err
		}
		j.m.Daemon = d
		if err := j.began(); err != nil {
			return err
		}
		if st, err = j.awaitDaemon(ctx); err != nil {
			return err
		}
	}
	if st.BackendState == ipn.Running.String() {
		j.Log.Info("using the tailscale that already runs")
		self, err := j.client.Self(ctx)
		if err != nil {
			return err
		}
		return j.fits(self)
	}
	if err := j.up(ctx); err != nil {
		return err
	}
	self, err := j.awaitReady(ctx)
	if err != nil {
		return err
	}
	j.Log.Info("joined the tailnet", "node", self.FQDN, "address", self.Addr.String(), "tags", self.Tags)
	return nil
}

// began tells what there is to undo.
func (j *joining) began() error {
	if j.Began == nil {
		return nil
	}
	return j.Began(*j.m)
}

// status asks a daemon that may not be there, and may be hung.
func (j *joining) status(ctx context.Context) (*ipnstate.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return j.client.local.StatusWithoutPeers(ctx)
}

// awaitDaemon waits until the daemon that we started answers and has found out
// what state it is in.
func (j *joining) awaitDaemon(ctx context.Context) (*ipnstate.Status, error) {
	bounded, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var last error
	for {
		st, err := j.status(bounded)
		if err == nil && st.BackendState != ipn.NoState.String() {
			return st, nil
		}
		last = err
		select {
		case <-j.m.Daemon.exited:
			return nil, fmt.Errorf("tailscaled ended at once; the end of %s:\n%s", j.m.Daemon.Log, j.scrub(tail(j.m.Daemon.Log)))
		default:
		}
		if sleep(bounded, 20*time.Millisecond) != nil {
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil, context.Cause(ctx)
			}
			return nil, fmt.Errorf("%w: tailscaled does not answer (%v); the end of %s:\n%s", ErrNotReady, last, j.m.Daemon.Log, j.scrub(tail(j.m.Daemon.Log)))
		}
	}
}

// awaitReady waits for what `tailscale up` does not: that this node is on the
// tailnet's own map, with its address and tags, and that peers can be told its
// SSH host keys.
func (j *joining) awaitReady(ctx context.Context) (Self, error) {
	const keysWait = 5 * time.Second
	begin := time.Now()
	for {
		self, err := j.client.Self(ctx)
		ready := err == nil && self.ID != "" && self.Name != ""
		if ready && j.SSH && len(self.HostKeys) == 0 {
			ready = time.Since(begin) > keysWait
			if ready {
				j.Log.Warn("the tailnet has not published this node's SSH host keys yet", "waited", keysWait)
			}
		}
		if ready {
			return self, j.fits(self)
		}
		if sleep(ctx, 25*time.Millisecond) != nil {
			return Self{}, fmt.Errorf("%w: tailscale is up, but this node is not usable: %v", context.Cause(ctx), err)
		}
	}
}

// fits tells what keeps the node from being the one that was asked for.
func (j *joining) fits(self Self) error {
	for _, tag := range j.Tags {
		if !slices.Contains(self.Tags, tag) {
			return fmt.Errorf("%w: %s has the tags [%s] but not %s: give it with `tailscale up --advertise-tags=%s`, or use a key that carries it",
				ErrWrongNode, self.Name, strings.Join(self.Tags, " "), tag, strings.Join(j.Tags, ","))
		}
	}
	if j.Hostname != "" && !SameHost(j.Hostname, self.Name) {
		return fmt.Errorf("%w: it is called %s, not %s: set `tailscale set --hostname=%s`, or configure the name it has",
			ErrWrongNode, self.Name, SanitizeHostname(j.Hostname), j.Hostname)
	}
	return nil
}

// SameHost reports whether label, the first one of a node's MagicDNS name, is
// what the tailnet makes of hostname: sanitised, and perhaps with a suffix "-N"
// because the name was taken.
func SameHost(hostname, label string) bool {
	rest, ok := strings.CutPrefix(label, SanitizeHostname(hostname))
	if !ok || rest == "" {
		return ok
	}
	digits, ok := strings.CutPrefix(rest, "-")
	return ok && digits != "" && digits[0] != '0' && strings.Trim(digits, "0123456789") == ""
}
