package direct

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sys/unix"
)

// PoolConfig is what a [Pool] is made from.
type PoolConfig struct {
	// Dial connects to a builder. Its connections must be the host's own: others can't be
	// handed to another process.
	Dial Dial
	// Size is how many connections to a builder are kept ready. If zero, 2.
	Size int
	// MaxAge is how old one may get before another takes its place. If zero, 5 min.
	MaxAge time.Duration
	Log    *slog.Logger // if nil, nothing is logged
}

// A Pool keeps connections to the stores of builders ready, so that a build need not wait
// for one. Make it with [NewPool].
type Pool struct {
	cfg PoolConfig

	ctx     context.Context // ends with the pool
	end     context.CancelFunc
	keepers sync.WaitGroup

	mu       sync.Mutex // guards builders and what is in them
	builders map[string]*ready
}

// ready are the connections to one builder that nobody has taken yet.
type ready struct {
	addr  string
	end   context.CancelFunc // of who keeps them
	taken chan struct{}      // holds a token when one was taken
	conns []readyConn        // oldest first
}

type readyConn struct {
	*net.TCPConn
	since time.Time
}

const (
	// keepEvery is how often those that wait are looked at.
	keepEvery = 5 * time.Second
	// keepPause is the longest pause after a builder could not be connected to.
	keepPause = 30 * time.Second
)

// NewPool makes a pool, which is empty until Set says whom to connect to. It lives until
// its Serve ends, or Close.
func NewPool(cfg PoolConfig) *Pool {
	cfg.Size = cmp.Or(cfg.Size, 2)
	cfg.MaxAge = cmp.Or(cfg.MaxAge, 5*time.Minute)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	p := &Pool{cfg: cfg, builders: map[string]*ready{}}
	p.ctx, p.end = context.WithCancel(context.Background())
	return p
}

// Set says which builders there are, by the addresses of their stores. Connections to
// others are closed; those that were taken are not.
func (p *Pool) Set(addrs []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for addr, r := range p.builders {
		if !slices.Contains(addrs, addr) {
			r.end()
			delete(p.builders, addr)
		}
	}
	for _, addr := range addrs {
		if p.builders[addr] != nil || p.ctx.Err() != nil {
			continue
		}
		ctx, end := context.WithCancel(p.ctx)
		r := &ready{addr: addr, end: end, taken: make(chan struct{}, 1)}
		p.builders[addr] = r
		p.keepers.Go(func() { p.keep(ctx, r) })
	}
}

// Close closes all connections that nobody has taken, and returns when that is done.
func (p *Pool) Close() {
	p.Set(nil)
	p.end()
	p.keepers.Wait()
}

// Take gives a connection to the builder's store that was kept ready; nil if there is none.
func (p *Pool) Take(addr string) *net.TCPConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.builders[addr]
	if r == nil {
		return nil
	}
	defer func() {
		select {
		case r.taken <- struct{}{}:
		default: // it is told already
		}
	}()
	for len(r.conns) > 0 {
		c := r.conns[0]
		r.conns = r.conns[1:]
		if quiet(c.TCPConn) {
			return c.TCPConn
		}
		c.Close()
	}
	return nil
}

// keep keeps connections to a builder ready until ctx ends.
func (p *Pool) keep(ctx context.Context, r *ready) {
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, c := range r.conns {
			c.Close()
		}
		r.conns = nil
	}()
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = 200*time.Millisecond, keepPause
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-r.taken:
		}
		pause := keepEvery
		if err := p.fill(ctx, r); err != nil {
			pause = pauses.NextBackOff()
			p.cfg.Log.Debug("keep a connection ready", "error", err)
		} else {
			pauses.Reset()
		}
		timer.Reset(pause)
	}
}

// fill connects until there are enough connections, and drops those that are of no use.
func (p *Pool) fill(ctx context.Context, r *ready) error {
	for {
		p.mu.Lock()
		r.conns = slices.DeleteFunc(r.conns, func(c readyConn) bool {
			stays := quiet(c.TCPConn) && time.Since(c.since) < p.cfg.MaxAge
			if !stays {
				c.Close()
			}
			return !stays
		})
		enough := len(r.conns) >= p.cfg.Size
		p.mu.Unlock()
		if enough || ctx.Err() != nil {
			return nil
		}
		conn, err := Connect(ctx, p.cfg.Dial, r.addr)
		if err != nil {
			return err
		}
		tcp, ok := conn.(*net.TCPConn)
		if !ok {
			conn.Close()
			return fmt.Errorf("connection to %s: %T can't be handed to another process", r.addr, conn)
		}
		p.mu.Lock()
		r.conns = append(r.conns, readyConn{tcp, time.Now()}) // closed by keep, if ctx has ended
		p.mu.Unlock()
	}
}

// quiet tells whether a connection is open and nothing came on it: a store speaks when it is
// spoken to.
func quiet(conn *net.TCPConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	is := false
	err = raw.Control(func(fd uintptr) {
		_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		is = err == unix.EAGAIN
	})
	return err == nil && is
}
