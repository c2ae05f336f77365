package testbed

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
)

// Tailnet says how a host joins the tailnet when a test, rather than the program
// under test, does it.
type Tailnet struct {
	// Hostname is what the node claims to be called. If empty, the host's name.
	Hostname string
	// Tags are the node's. Without any the node is [control.Person]'s.
	Tags []string
	// SSH makes the node serve Tailscale SSH.
	SSH bool
	// Userspace makes tailscaled do without a network device: nothing but
	// tailscaled itself is on the tailnet.
	Userspace bool
}

// StartTailscaled starts the host's tailscaled with a state that does not
// outlive it, which makes its node ephemeral. Its log is
// /var/log/tailscaled.log.
func (h *Host) StartTailscaled(ctx context.Context, args ...string) error {
	argv := append([]string{"tailscaled", "--no-logs-no-support", "--state=mem:", "--statedir=/var/lib/tailscale"}, args...)
	if err := h.Spawn(ctx, "tailscaled", argv...); err != nil {
		return err
	}
	if err := h.await(ctx, 10*time.Second, "test", "-S", "/run/tailscale/tailscaled.sock"); err != nil {
		return fmt.Errorf("start tailscaled on %s: %w", h.Name(), err)
	}
	return nil
}

// JoinTailnet starts tailscaled and logs it in.
func (h *Host) JoinTailnet(ctx context.Context, t Tailnet) error {
	var args []string
	if t.Userspace {
		args = append(args, "--tun=userspace-networking")
	}
	if err := h.StartTailscaled(ctx, args...); err != nil {
		return err
	}
	hostname, key := t.Hostname, control.CIKey
	if hostname == "" {
		hostname = h.Name()
	}
	if len(t.Tags) == 0 {
		key = control.PersonKey
	}
	return h.Run(ctx, "tailscale", "up", "--timeout=30s",
		"--login-server="+h.lab.LoginServer(), "--auth-key="+key, "--hostname="+hostname,
		"--advertise-tags="+strings.Join(t.Tags, ","), fmt.Sprintf("--ssh=%t", t.SSH))
}
