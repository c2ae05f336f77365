package tailnet

import (
	"net"
	"syscall"
	"time"
)

// A silence is how long a peer may be silent before the kernel ends a connection to it,
// whether it waits or has sent what the peer does not acknowledge. A peer that is gone
// without a word resets nothing: left alone, its connections stay for a quarter of an hour.
//
// The two have different timers, and one may begin when the other is nearly over: data is
// sent to a peer just before probes would have found it dead. So each gets half of it.
type silence time.Duration

// keepAlive is when an idle connection is probed. Kernels count whole seconds.
func (s silence) keepAlive() net.KeepAliveConfig {
	every := max((time.Duration(s) / 9).Truncate(time.Second), time.Second)
	return net.KeepAliveConfig{
		Enable: true, Idle: every, Interval: every,
		// Linux goes by the time of unanswered instead.
		Count: max(int(s.unanswered()/every), 1),
	}
}

// unanswered is how long what was sent may be without an answer. Probes end a connection at
// the first of them that is due later, so together the two take no longer than s.
func (s silence) unanswered() time.Duration {
	every := max((time.Duration(s) / 9).Truncate(time.Second), time.Second)
	return max((time.Duration(s)-every)/2, time.Second)
}

// bound makes the kernel end the connection.
func (s silence) bound(conn *net.TCPConn) error {
	if err := conn.SetKeepAliveConfig(s.keepAlive()); err != nil {
		return err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	return s.control("", "", raw)
}

// control is bound for what a [net.Dialer] is about to connect, but for its probes.
func (s silence) control(_, _ string, raw syscall.RawConn) error {
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = setUnanswered(int(fd), s.unanswered()) }); err != nil {
		return err
	}
	return failed
}

// silentListener ends what it accepts after a silence.
type silentListener struct {
	net.Listener
	silence
}

func (l silentListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.bound(conn.(*net.TCPConn)) == nil {
			return conn, nil
		}
		conn.Close() // its peer has gone already, which some kernels tell this way
	}
}
