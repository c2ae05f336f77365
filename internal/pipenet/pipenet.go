// Package pipenet is a network in memory, for tests in a testing/synctest bubble: sockets
// don't suit fake time, pipes do. Like the tailnet it gives every connection the address of
// the node that it comes from.
package pipenet

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
)

// Listener is a net.Listener that Dial connects to.
type Listener struct {
	addr  netip.AddrPort
	conns chan net.Conn
	done  chan struct{}
	close func()
	port  atomic.Uint32 // of the last connection's far end
}

// Listen returns a listener at addr, IP:PORT.
func Listen(addr string) *Listener {
	done := make(chan struct{})
	return &Listener{
		addr:  netip.MustParseAddrPort(addr),
		conns: make(chan net.Conn),
		done:  done,
		close: sync.OnceFunc(func() { close(done) }),
	}
}

// Accept waits for the next connection.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close ends the listener; connections stay.
func (l *Listener) Close() error {
	l.close()
	return nil
}

// Addr is where it listens.
func (l *Listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

// Dial connects from the node at the address from.
func (l *Listener) Dial(ctx context.Context, from netip.Addr) (net.Conn, error) {
	near, far := net.Pipe()
	at := net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, uint16(l.port.Add(1)%60000+1024)))
	select {
	case l.conns <- conn{far, l.Addr(), at}:
		return conn{near, at, l.Addr()}, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Transport returns an HTTP transport whose connections come from the node at from,
// wherever requests are made to.
func (l *Listener) Transport(from netip.Addr) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return l.Dial(ctx, from) },
	}
}

// conn is one end of a pipe with the addresses of a TCP connection.
type conn struct {
	net.Conn
	local, remote net.Addr
}

func (c conn) LocalAddr() net.Addr  { return c.local }
func (c conn) RemoteAddr() net.Addr { return c.remote }
