package scheduler

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	helloWait = 10 * time.Second // for the first line
	// maxUnread is how many messages a hook may leave unread; one that talks sense has
	// three at most.
	maxUnread = 16
	// An acceptance that fails, for want of descriptors most likely, is tried again.
	acceptPause = 100 * time.Millisecond
	acceptTries = 100 // in a row
)

// Serve answers hooks until ctx ends, then closes ln and all connections, and returns when
// nothing of it is left. Hooks that have a build go on and look for the next scheduler. Serve
// is to be called once.
func (s *Scheduler) Serve(ctx context.Context, ln net.Listener) error {
	// The connections outlive ctx by the moment that it takes to note that all of them end.
	all, cut := context.WithCancel(context.WithoutCancel(ctx))
	end := sync.OnceFunc(func() {
		s.end()
		cut()
		ln.Close()
	})
	defer context.AfterFunc(ctx, end)()
	var hooks sync.WaitGroup
	defer hooks.Wait()
	defer end()
	for tries := 0; ; {
		conn, err := ln.Accept()
		switch {
		case err == nil:
			tries = 0
			hooks.Go(func() { s.serve(all, conn) })
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed) || tries == acceptTries:
			return fmt.Errorf("serve hooks: %w", err)
		default:
			tries++
			s.log.Warn("accept a hook", "error", err)
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
			}
		}
	}
}

// end keeps what is still there as it is: slots that become free now are not given away, for
// those who had them go on without us.
func (s *Scheduler) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.expireLocked()
}

// serve talks with one hook until it, or ctx, ends.
func (s *Scheduler) serve(ctx context.Context, nc net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	c := &conn{Conn: nc, log: s.log, outbox: make(chan letter, maxUnread)}
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { nc.Close() })()

	r := bufio.NewReader(nc)
	if err := s.greet(c, r); err != nil {
		s.complain("a hook is not understood", err)
		return
	}
	j := &job{hook: c}
	s.mu.Lock()
	s.jobs[j] = struct{}{}
	s.mu.Unlock()
	defer s.drop(j)
	parts.Go(c.deliver)

	asking := make(chan struct{}, 1) // holds a token while a question is open
	for {
		m, err := readMessage(r)
		switch {
		case err != nil:
		case m.Op == OpAsk:
			select {
			case asking <- struct{}{}:
				parts.Go(func() {
					answer := s.condition(ctx, m.Machine, m.Since)
					<-asking
					s.mu.Lock()
					defer s.mu.Unlock()
					j.tell(Message{Op: OpCondition, Machine: m.Machine, Condition: &answer}, answer.Unknown)
				})
			default:
				err = errors.New("it asks twice at a time")
			}
		default:
			err = s.handle(j, m)
		}
		if err != nil {
			s.complain("a hook's connection is ended", err)
			return
		}
	}
}

// complain tells of a connection's end unless it is an ordinary one.
func (s *Scheduler) complain(what string, err error) {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrClosedPipe), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET):
	default:
		s.log.Warn(what, "error", err)
	}
}

func (s *Scheduler) greet(c *conn, r *bufio.Reader) error {
	if err := c.SetReadDeadline(time.Now().Add(helloWait)); err != nil {
		return err
	}
	m, err := readMessage(r)
	switch {
	case err != nil:
		return err
	case m.Op != OpHello:
		return fmt.Errorf("it begins with %q", m.Op)
	case m.Version != Version:
		return fmt.Errorf("it speaks version %d, and this program %d", m.Version, Version)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	return writeMessage(c.Conn, Message{Op: OpWelcome, Version: Version, Builders: s.cfg.Builders})
}

// conn is the connection of one hook. What is sent is written by a goroutine of its own, so
// that a hook that does not read keeps up nobody.
type conn struct {
	net.Conn
	log    *slog.Logger
	outbox chan letter // guarded by the scheduler's mutex, as is closed
	closed bool
}

// A letter is a message and, for the log, what it is about and why it is sent.
type letter struct {
	Message
	build, why string
}

// send leaves a letter to be written. The scheduler's mutex is held.
func (c *conn) send(l letter) {
	if c.closed {
		return
	}
	select {
	case c.outbox <- l:
	default:
		c.Close() // the reader sees to the rest
	}
}

func (c *conn) deliver() {
	broken := false
	for l := range c.outbox {
		c.log.Debug("tell a hook", "op", l.Op, "build", l.build, "machine", l.Machine, "reason", l.why)
		if !broken && writeMessage(c.Conn, l.Message) != nil {
			broken = true
			c.Close()
		}
	}
}
