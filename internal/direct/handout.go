package direct

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// handTime bounds the handing out of one connection.
	handTime = time.Second
	// maxAsked bounds what is asked for, an address.
	maxAsked = 64
)

// What is answered to who asks for a connection: it, or that there is none.
const (
	handed = 'y'
	none   = 'n'
)

// Serve hands connections out to processes of this host that ask for them at the listener,
// a unix socket which it closes, until ctx ends; then it closes the pool. Only whom the
// pool trusts may reach the listener.
func (p *Pool) Serve(ctx context.Context, l net.Listener) error {
	defer p.Close()
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("hand out connections: %w", err)
		}
		to, ok := conn.(*net.UnixConn)
		if !ok {
			conn.Close()
			return fmt.Errorf("hand out connections: they can't go over a %T", conn)
		}
		p.keepers.Go(func() { // ends soon: it has a deadline
			defer to.Close()
			if err := p.hand(to); err != nil {
				p.cfg.Log.Debug("hand out a connection", "error", err)
			}
		})
	}
}

// hand hands one connection to who asks.
func (p *Pool) hand(to *net.UnixConn) error {
	if err := to.SetDeadline(time.Now().Add(handTime)); err != nil {
		return err
	}
	line, err := bufio.NewReader(io.LimitReader(to, maxAsked)).ReadString('\n')
	if err != nil {
		return err
	}
	conn := p.Take(strings.TrimSuffix(line, "\n"))
	if conn == nil {
		_, err := to.Write([]byte{none})
		return err
	}
	defer conn.Close() // ours; who asked has its own
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Control(func(fd uintptr) {
		_, _, sent = to.WriteMsgUnix([]byte{handed}, unix.UnixRights(int(fd)), nil)
	})
	return errors.Join(err, sent)
}

// Ask asks the pool at the socket for a connection to the store at addr, and waits no
// longer than limit. Nil: there is none.
func Ask(socket, addr string, limit time.Duration) (net.Conn, error) {
	conn, err := ask(socket, addr, time.Now().Add(limit))
	if err != nil {
		return nil, fmt.Errorf("ask for a connection that is ready: %w", err)
	}
	return conn, nil
}

func ask(socket, addr string, deadline time.Time) (net.Conn, error) {
	d := net.Dialer{Deadline: deadline}
	conn, err := d.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	pool := conn.(*net.UnixConn)
	if err := pool.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(pool, addr+"\n"); err != nil {
		return nil, err
	}
	answer, rights := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	n, m, _, _, err := pool.ReadMsgUnix(answer, rights)
	switch {
	case err != nil:
		return nil, err
	case n == 1 && answer[0] == none:
		return nil, nil
	case n != 1 || answer[0] != handed:
		return nil, errors.New("the answer is none")
	}
	return received(rights[:m])
}

// received is the connection in a control message.
func received(rights []byte) (net.Conn, error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil || len(fds) == 0 {
			continue
		}
		f := os.NewFile(uintptr(fds[0]), "store") // there was room for one
		defer f.Close()
		return net.FileConn(f)
	}
	return nil, errors.New("the answer brings no connection")
}
