package tailnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/silence"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/unixsock"
)

// addressWait bounds the wait for a tailnet address to appear on the host's
// interface, which happens a little after tailscaled says that it runs.
const addressWait = 5 * time.Second

// ListenConfig says where [Client.Listen] listens.
type ListenConfig struct {
	Port int // TCP port; 0 picks a free one
	// ControlSocket is the path of a Unix socket whose callers are this host's
	// own node, see [unixsock.Listen]. If empty, there is none.
	ControlSocket string
	GID           int // group that ControlSocket is open to, too; negative: none
	// Silence is how long a peer may be silent before its connections are ended. If
	// zero, they are left to the kernel. In userspace networking it holds between
	// tailscaled and this process alone: what is dead behind tailscaled is not seen.
	Silence time.Duration
}

// Listening is where this host takes calls from the tailnet and from itself.
// Whoever takes the listeners closes them.
type Listening struct {
	// Tailnet are reached by whomever the tailnet lets in; [Client.WhoIs] tells
	// who it is. With a TUN device this host is among them.
	Tailnet []net.Listener
	// Own are reached by nobody but processes of this host, so that who calls is
	// this host's own node, whatever state its tailscaled is in.
	Own []net.Listener

	Base    string // http://ADDRESS:PORT as peers reach it
	OwnBase string // http://ADDRESS:PORT for this host's own processes
	// Hosts are the names and addresses, without port, that rightly come in a
	// Host header.
	Hosts []string
}

// Close closes all listeners.
func (l *Listening) Close() error {
	var errs []error
	for _, ln := range slices.Concat(l.Tailnet, l.Own) {
		errs = append(errs, ln.Close())
	}
	return errors.Join(errs...)
}

// Listen opens the listeners of a service on the tailnet; other networks of the
// host do not reach it.
//
// With a TUN device it binds the tailnet addresses, and this host reaches it
// there too. In userspace networking it binds 127.0.0.1, for that is where
// tailscaled forwards connections for the node's own addresses, IPv6 included
// (netstack's acceptTCP rewrites each to its ipv4Loopback). A process of this
// host that connects there is unknown to the tailnet, and refused; for those
// there is a second loopback address, to which tailscaled never forwards.
func (c *Client) Listen(ctx context.Context, cfg ListenConfig) (_ *Listening, err error) {
	self, err := c.Self(ctx)
	if err != nil {
		return nil, fmt.Errorf("listen on the tailnet: %w", err)
	}
	l := &Listening{}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	if self.Userspace {
		err = l.userspace(self, cfg.Port)
	} else {
		err = l.tun(ctx, self, cfg.Port)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on the tailnet: %w", err)
	}
	if cfg.Silence > 0 {
		for i, ln := range l.Tailnet {
			l.Tailnet[i] = silence.Listener(ln, cfg.Silence)
		}
	}
	if cfg.ControlSocket != "" {
		ln, err := unixsock.Listen(cfg.ControlSocket, cfg.GID)
		if err != nil {
			return nil, fmt.Errorf("listen on control socket: %w", err)
		}
		l.Own = append(l.Own, ln)
	}
	return l, nil
}

func (l *Listening) tun(ctx context.Context, self Self, port int) error {
	ips := slices.Clone(self.IPs)
	slices.SortStableFunc(ips, func(a, b netip.Addr) int { return a.BitLen() - b.BitLen() })
	var errs []error
	for _, ip := range ips {
		ln, err := listenSoon(ctx, netip.AddrPortFrom(ip, uint16(port)))
		if err != nil {
			errs = append(errs, err) // a host may have IPv6 switched off
			continue
		}
		port = portOf(ln)
		l.Tailnet = append(l.Tailnet, ln)
		if l.Base == "" {
			l.Base = "http://" + hostPort(ip.String(), port)
		}
	}
	if len(l.Tailnet) == 0 {
		return errors.Join(errs...)
	}
	l.OwnBase = l.Base
	l.Hosts = hosts(self)
	return nil
}

// listenSoon listens on an address that the host may be about to get.
func listenSoon(ctx context.Context, ap netip.AddrPort) (net.Listener, error) {
	ctx, cancel := context.WithTimeout(ctx, addressWait)
	defer cancel()
	for {
		ln, err := new(net.ListenConfig).Listen(ctx, "tcp", ap.String())
		if !errors.Is(err, syscall.EADDRNOTAVAIL) || ap.Addr().Is6() {
			return ln, err
		}
		if sleep(ctx, 50*time.Millisecond) != nil {
			return nil, err
		}
	}
}

func (l *Listening) userspace(self Self, port int) error {
	forwarded, err := net.Listen("tcp", hostPort("127.0.0.1", port))
	if err != nil {
		return err
	}
	l.Tailnet = append(l.Tailnet, forwarded)
	port = portOf(forwarded)
	l.Base = "http://" + hostPort(self.Addr.String(), port)
	l.Hosts = hosts(self)
	// 127.0.0.2 stands in where IPv6 is off; Linux has all of 127/8.
	var errs []error
	for _, host := range []string{"::1", "127.0.0.2"} {
		ln, err := net.Listen("tcp", hostPort(host, port))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		l.Own = append(l.Own, ln)
		l.OwnBase = "http://" + hostPort(host, port)
		l.Hosts = append(l.Hosts, host)
		return nil
	}
	return errors.Join(errs...)
}

func hosts(self Self) []string {
	var hs []string
	for _, ip := range self.IPs {
		hs = append(hs, ip.String())
	}
	for _, name := range []string{self.Name, self.FQDN} {
		if name != "" {
			hs = append(hs, name)
		}
	}
	return hs
}

func hostPort(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

func portOf(ln net.Listener) int { return ln.Addr().(*net.TCPAddr).Port }
