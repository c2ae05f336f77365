package tailnet

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"tailscale.com/net/tsaddr"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/silence"
)

// dialTimeout bounds one attempt to connect to a peer.
const dialTimeout = 10 * time.Second

// Dial connects to an address of the tailnet, HOST:PORT with a decimal port. In
// userspace networking tailscaled dials for us. An attempt takes 10 s at most.
func (c *Client) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return c.dial(ctx, new(net.Dialer), network, addr)
}

// dial is Dial by way of d where the host itself connects.
func (c *Client) dial(ctx context.Context, d *net.Dialer, network, addr string) (net.Conn, error) {
	attempt, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	self, err := c.memo(attempt)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	// Only another node can be met: this one does not answer itself.
	if ap, err := netip.ParseAddrPort(addr); err == nil && tsaddr.IsTailscaleIP(ap.Addr()) && !slices.Contains(self.ips, ap.Addr()) {
		c.meet(attempt, ap.Addr())
	}
	if !self.userspace {
		return d.DialContext(attempt, network, addr)
	}
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("dial %s: port is not a number", addr)
	}
	return c.userDial(attempt, network, host, uint16(port))
}

// userDial lets ctx end the attempt, but not the connection that it gave: that
// is a request to tailscaled which stays open, and would die with its context.
func (c *Client) userDial(ctx context.Context, network, host string, port uint16) (net.Conn, error) {
	open, end := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, end)
	conn, err := c.local.UserDial(open, network, host, port)
	if err != nil {
		end()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("dial %s through tailscaled: %w", net.JoinHostPort(host, strconv.Itoa(int(port))), err)
	}
	if _, direct := conn.(*net.TCPConn); direct {
		// To an address that is no peer's the LocalAPI's client connects by
		// itself, over whatever network the host has. Nobody asked for that.
		end()
		conn.Close()
		return nil, fmt.Errorf("dial %s: %w has this address", host, ErrNoPeer)
	}
	if !stop() { // it ended just now, and took the connection along
		conn.Close()
		return nil, context.Cause(ctx)
	}
	return &dialedConn{Conn: conn, end: end}, nil
}

// dialedConn ends the request that carries it when it is closed.
type dialedConn struct {
	net.Conn
	end context.CancelFunc
}

func (c *dialedConn) Close() error {
	defer c.end()
	return c.Conn.Close()
}

// Dialer returns what connects as Dial does, but whose connections end when nothing is
// heard on them for as long as quiet; those through tailscaled don't.
func (c *Client) Dialer(quiet time.Duration) func(ctx context.Context, network, addr string) (net.Conn, error) {
	d := silence.Dialer(quiet)
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		return c.dial(ctx, d, network, addr)
	}
}

// Transport carries HTTP to peers. It keeps few connections and never uses a
// proxy. Requests must bound themselves by their context: a peer that is gone
// without a word looks like one that is slow.
//
// No connection stays longer than quiet when nothing is heard on it, used or not; in
// userspace networking none that is not used. If quiet is zero, 90 s.
func (c *Client) Transport(quiet time.Duration) *http.Transport {
	quiet = cmp.Or(quiet, 90*time.Second)
	return &http.Transport{
		DialContext:            c.Dialer(quiet),
		DisableCompression:     true,
		MaxIdleConnsPerHost:    2,
		IdleConnTimeout:        quiet,
		MaxResponseHeaderBytes: 64 << 10,
	}
}
