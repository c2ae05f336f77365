package scheduler

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"sync"
)

// A Client is a hook's end of the socket. Its methods may be called at the same time.
type Client struct {
	conn     net.Conn
	builders string

	writing  sync.Mutex // one message at a time
	messages chan Message
	closing  chan struct{} // closed by Close
	close    func()
	read     chan struct{} // closed when nothing more is read
	err      error         // why; to be read once read is closed
}

// Dial connects to the scheduler at a socket and exchanges greetings. ctx bounds that, and
// has no part in what comes later.
func Dial(ctx context.Context, socket string) (*Client, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("reach the scheduler: %w", err)
	}
	return NewClient(ctx, conn)
}

// NewClient is [Dial] over a connection that is there, which is the client's from then on.
func NewClient(ctx context.Context, conn net.Conn) (*Client, error) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	r := bufio.NewReader(conn)
	builders, err := greet(conn, r)
	if !stop() { // the connection is closed
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("reach the scheduler: %w", err)
	}
	c := &Client{
		conn: conn, builders: builders,
		messages: make(chan Message),
		closing:  make(chan struct{}),
		read:     make(chan struct{}),
	}
	c.close = sync.OnceFunc(func() {
		close(c.closing)
		conn.Close()
	})
	go c.receive(r)
	return c, nil
}

func greet(conn net.Conn, r *bufio.Reader) (builders string, err error) {
	if err := writeMessage(conn, Message{Op: OpHello, Version: Version}); err != nil {
		return "", err
	}
	m, err := readMessage(r)
	if err == nil && m.Op != OpWelcome {
		err = fmt.Errorf("it answered %q", m.Op)
	}
	return m.Builders, err
}

// receive hands messages over until the connection ends; then its channel is closed.
func (c *Client) receive(r *bufio.Reader) {
	defer close(c.messages)
	defer close(c.read)
	for {
		m, err := readMessage(r)
		if err != nil {
			c.err = fmt.Errorf("hear from the scheduler: %w", err)
			return
		}
		select {
		case c.messages <- m:
		case <-c.closing:
			c.err = net.ErrClosed
			return
		}
	}
}

// Builders is the setting of that name which means the scheduler's machines.
func (c *Client) Builders() string { return c.builders }

// Send tells the scheduler m, within 10 s.
func (c *Client) Send(m Message) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := writeMessage(c.conn, m); err != nil {
		return fmt.Errorf("tell the scheduler %s: %w", m.Op, err)
	}
	return nil
}

// Messages are what the scheduler says. The channel is closed when the connection has ended;
// [Client.Err] says why.
func (c *Client) Messages() <-chan Message { return c.messages }

// Err says why there are no more messages; nil as long as there may be some.
func (c *Client) Err() error {
	select {
	case <-c.read:
		return c.err
	default:
		return nil
	}
}

// Recv waits for the next message.
func (c *Client) Recv(ctx context.Context) (Message, error) {
	select {
	case m, ok := <-c.messages:
		if !ok {
			return Message{}, c.err
		}
		return m, nil
	case <-ctx.Done():
		return Message{}, context.Cause(ctx)
	}
}

// Close ends the connection, and with it all that the scheduler has for this hook.
func (c *Client) Close() error {
	c.close()
	for range c.messages { // receive ends at once
	}
	return nil
}
