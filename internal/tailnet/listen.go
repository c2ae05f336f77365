package tailnet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// addressWait bounds the wait for a tailnet address to appear on the host's
// interface, which happens a little after tailscaled says that it runs.
const addressWait = 5 * time.Second

// ListenConfig says where [Client.Listen] listens.
type ListenConfig struct {
	Port int // TCP port; 0 picks a free one
	// ControlSocket is the path of a Unix socket whose callers are this host's
	// own node. It is open to root and to the group GID, mode 0660. A socket
	// file that a dead process left is replaced. If empty, there is none.
	ControlSocket string
	GID           int // group of ControlSocket; negative: that of the process
}

// Listening is where this host takes calls from the tailnet and from itself.
type Listening struct {
	// Listeners are for one http.Server. Whoever takes them closes them.
	Listeners []net.Listener
	// Base is http://ADDRESS:PORT as peers reach it.
	Base string
	// LocalBase is http://ADDRESS:PORT for this host's own processes.
	LocalBase string
	// Hosts are the HOST:PORT forms that rightly come in a Host header.
	Hosts []string
}

// Close closes all listeners.
func (l *Listening) Close() error {
	var errs []error
	for _, ln := range l.Listeners {
		errs = append(errs, ln.Close())
	}
	return errors.Join(errs...)
}

// Listen opens the listeners of a service on the tailnet; other networks of the
// host do not reach it. [Client.WhoIs] tells who called on any of them.
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
	if cfg.ControlSocket != "" {
		ln, err := listenControl(cfg.ControlSocket, cfg.GID)
		if err != nil {
			return nil, fmt.Errorf("listen on control socket: %w", err)
		}
		l.Listeners = append(l.Listeners, ownListener{ln})
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
		l.Listeners = append(l.Listeners, ln)
		if l.Base == "" {
			l.Base = "http://" + hostPort(ip.String(), port)
		}
	}
	if len(l.Listeners) == 0 {
		return errors.Join(errs...)
	}
	l.LocalBase = l.Base
	l.Hosts = hosts(self, port)
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
	l.Listeners = append(l.Listeners, forwarded)
	port = portOf(forwarded)
	l.Base = "http://" + hostPort(self.Addr.String(), port)
	l.Hosts = hosts(self, port)
	// 127.0.0.2 stands in where IPv6 is off; Linux has all of 127/8.
	var errs []error
	for _, host := range []string{"::1", "127.0.0.2"} {
		ln, err := net.Listen("tcp", hostPort(host, port))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		l.Listeners = append(l.Listeners, ownListener{ln})
		l.LocalBase = "http://" + hostPort(host, port)
		l.Hosts = append(l.Hosts, hostPort(host, port))
		return nil
	}
	return errors.Join(errs...)
}

func hosts(self Self, port int) []string {
	var hs []string
	for _, ip := range self.IPs {
		hs = append(hs, hostPort(ip.String(), port))
	}
	for _, name := range []string{self.Name, self.FQDN} {
		if name != "" {
			hs = append(hs, hostPort(name, port))
		}
	}
	return hs
}

// listenControl makes the socket under another name, gives it its owner and
// mode there and moves it into place: at its path it is never too open.
func listenControl(path string, gid int) (net.Listener, error) {
	if err := removeDeadSocket(path); err != nil {
		return nil, err
	}
	private, err := os.MkdirTemp(filepath.Dir(path), ".control-") // 0700
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(private)
	temp := filepath.Join(private, "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false)
	if gid >= 0 {
		err = os.Chown(temp, -1, gid)
	}
	if err = errors.Join(err, os.Chmod(temp, 0o660)); err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		ln.Close()
		return nil, err
	}
	return &socketListener{Listener: ln, path: path}, nil
}

// removeDeadSocket takes a socket away that nobody serves any more. A path that
// is something else, or is served, is an error.
func removeDeadSocket(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is in the way and is not a socket", path)
	}
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close()
		return fmt.Errorf("%s: another process serves it", path)
	}
	return os.Remove(path)
}

// socketListener removes its socket file when it is closed.
type socketListener struct {
	net.Listener
	path string
}

func (l *socketListener) Close() error {
	os.Remove(l.path)
	return l.Listener.Close()
}

// ownListener marks its connections as coming from this host's own node.
type ownListener struct{ net.Listener }

func (l ownListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return ownConn{conn}, nil
}

type ownConn struct{ net.Conn }

func (c ownConn) RemoteAddr() net.Addr { return ownAddr{c.Conn.RemoteAddr()} }

// ownAddr looks like HOST:PORT, as those who take such a string apart expect.
type ownAddr struct{ of net.Addr }

func (ownAddr) Network() string { return "own" }

func (a ownAddr) String() string {
	port := 0
	if tcp, ok := a.of.(*net.TCPAddr); ok {
		port = tcp.Port
	}
	return ownHost + ":" + strconv.Itoa(port)
}

func hostPort(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

func portOf(ln net.Listener) int { return ln.Addr().(*net.TCPAddr).Port }
