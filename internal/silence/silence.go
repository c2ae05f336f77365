// Package silence bounds how long the connections to a peer outlive its last word.
package silence

import (
	"net"
	"syscall"
	"time"
)

// A bound is how long a peer may be silent before the kernel ends a connection to it,
// whether it waits or has sent what the peer does not acknowledge. A peer that is gone
// without a word resets nothing: left alone, its connections stay for a quarter of an hour.
//
// The two have different timers, and one may begin when the other is nearly over: data is
// sent to a peer just before probes would have found it dead. So each gets half of it.
type bound time.Duration

// Dialer connects over the host's own network. Its connections end when nothing is heard on
// them for as long as quiet.
func Dialer(quiet time.Duration) *net.Dialer {
	return &net.Dialer{KeepAliveConfig: bound(quiet).keepAlive(), Control: bound(quiet).control}
}

// Listener accepts what l does, TCP. The connections end when nothing is heard on them for
// as long as quiet.
func Listener(l net.Listener, quiet time.Duration) net.Listener { return listener{l, bound(quiet)} }

// keepAlive is when an idle connection is probed. Kernels count whole seconds.
func (b bound) keepAlive() net.KeepAliveConfig {
	every := max((time.Duration(b) / 9).Truncate(time.Second), time.Second)
	return net.KeepAliveConfig{
		Enable: true, Idle: every, Interval: every,
		// Linux goes by the time of unanswered instead.
		Count: max(int(b.unanswered()/every), 1),
	}
}

// unanswered is how long what was sent may be without an answer. Probes end a connection at
// the first of them that is due later, so together the two take no longer than b.
func (b bound) unanswered() time.Duration {
	every := max((time.Duration(b) / 9).Truncate(time.Second), time.Second)
	return max((time.Duration(b)-every)/2, time.Second)
}

// set makes the kernel end the connection.
func (b bound) set(conn *net.TCPConn) error {
	if err := conn.SetKeepAliveConfig(b.keepAlive()); err != nil {
		return err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	return b.control("", "", raw)
}

// control is set for what a [net.Dialer] is about to connect, but for its probes.
func (b bound) control(_, _ string, raw syscall.RawConn) error {
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = setUnanswered(int(fd), b.unanswered()) }); err != nil {
		return err
	}
	return failed
}

type listener struct {
	net.Listener
	bound
}

func (l listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.set(conn.(*net.TCPConn)) == nil {
			return conn, nil
		}
		conn.Close() // its peer has gone already, which some kernels tell this way
	}
}
