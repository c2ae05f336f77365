package httpapi

import (
	"net"
	"net/netip"
	"sync"
)

// conns counts the connections of all listeners of a server. One over a bound is closed at
// once: its caller sees a reset and tries again, and those who are there keep their place.
type conns struct {
	most    int    // in all
	perAddr int    // from one address
	refused func() // called for each connection that is over a bound

	mu   sync.Mutex // guards what follows
	all  int
	from map[netip.Addr]int
}

func newConns(most, perAddr int, refused func()) *conns {
	return &conns{most: most, perAddr: perAddr, refused: refused, from: make(map[netip.Addr]int)}
}

// listen returns l with its connections bounded.
func (b *conns) listen(l net.Listener) net.Listener { return countedListener{l, b} }

// enter counts a connection from addr, the zero Addr if it has none, or says that it is too
// many. The loopback's share is not bounded: with userspace networking every builder's
// connection comes from there.
func (b *conns) enter(addr netip.Addr) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all >= b.most {
		return false
	}
	if addr.IsValid() && !addr.IsLoopback() && b.from[addr] >= b.perAddr {
		return false
	}
	b.all++
	b.from[addr]++
	return true
}

func (b *conns) leave(addr netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all--
	if b.from[addr]--; b.from[addr] == 0 {
		delete(b.from, addr)
	}
}

type countedListener struct {
	net.Listener
	bounds *conns
}

func (l countedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		var addr netip.Addr
		if at, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil {
			addr = at.Addr().Unmap()
		}
		if l.bounds.enter(addr) {
			return &countedConn{Conn: c, leave: sync.OnceFunc(func() { l.bounds.leave(addr) })}, nil
		}
		_ = c.Close()
		l.bounds.refused()
	}
}

type countedConn struct {
	net.Conn
	leave func()
}

func (c *countedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// CloseWrite lets the server send the end of its answer before it closes, which keeps a
// caller who still sends from losing the answer to a reset.
func (c *countedConn) CloseWrite() error {
	inner := c.Conn
	if local, ok := inner.(localConn); ok {
		inner = local.Conn
	}
	if half, ok := inner.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
