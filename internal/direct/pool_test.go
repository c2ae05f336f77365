package direct_test

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/direct"
)

// pooled starts a pool that others reach at a socket.
func pooled(t testing.TB, cfg direct.PoolConfig) (*direct.Pool, string) {
	t.Helper()
	if cfg.Dial == nil {
		cfg.Dial = dial
	}
	p := direct.NewPool(cfg)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Error("the pool does not end")
		}
	})
	return p, path
}

// taken asks a pool until it has a connection ready.
func taken(t testing.TB, socket, addr string) net.Conn {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		conn, err := direct.Ask(socket, addr, patience)
		if err != nil {
			t.Fatal(err)
		}
		if conn != nil {
			return conn
		}
	}
	t.Fatal("the pool has nothing ready")
	return nil
}

func TestPoolHandsOut(t *testing.T) {
	r := serve(t, "exec cat")
	p, socket := pooled(t, direct.PoolConfig{Size: 2})
	if conn, err := direct.Ask(socket, r.addr, patience); conn != nil || err != nil {
		t.Errorf("a pool of nothing handed out %v, %v", conn, err)
	}
	p.Set([]string{r.addr})
	for range 10 { // it fills up again
		conn := taken(t, socket, r.addr)
		if err := exchange(conn, random(300_000)); err != nil {
			t.Error(err)
		}
		conn.Close()
	}
	held := taken(t, socket, r.addr)
	defer held.Close()
	p.Set(nil)
	if conn, err := direct.Ask(socket, r.addr, patience); conn != nil || err != nil {
		t.Errorf("a builder that is gone: %v, %v", conn, err)
	}
	if err := exchange(held, random(1000)); err != nil {
		t.Errorf("what was taken before it went: %v", err)
	}
}

// A connection that its builder has ended is not handed out, nor is one that says something.
func TestPoolHandsOutNothingDead(t *testing.T) {
	r := serve(t, "exec cat")
	p, socket := pooled(t, direct.PoolConfig{Size: 2})
	p.Set([]string{r.addr})
	taken(t, socket, r.addr).Close()
	for range 3 {
		r.Fence("the test says so")
		r.idle()
		r.Claim(loopback)
		conn := taken(t, socket, r.addr)
		if err := exchange(conn, random(1000)); err != nil {
			t.Error(err)
		}
		conn.Close()
	}
	talks := answering(t, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: nix-daemon\r\nConnection: Upgrade\r\n\r\nhello", true)
	p.Set([]string{talks})
	for range 10 {
		if conn, _ := direct.Ask(socket, talks, patience); conn != nil {
			t.Error("a connection on which something came was handed out")
			conn.Close()
		}
	}
}

// Connections do not get old.
func TestPoolRenews(t *testing.T) {
	dials := make(chan struct{}, 100)
	r := serve(t, "exec cat")
	p := direct.NewPool(direct.PoolConfig{Size: 1, MaxAge: time.Nanosecond, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials <- struct{}{}
		return dial(ctx, network, addr)
	}})
	defer p.Close()
	p.Set([]string{r.addr})
	<-dials
	if conn := p.Take(r.addr); conn != nil { // which makes it look
		conn.Close()
	}
	select {
	case <-dials:
	case <-time.After(patience):
		t.Error("an old connection is kept")
	}
}

func TestPoolOfBuildersThatDoNotAnswer(t *testing.T) {
	p, socket := pooled(t, direct.PoolConfig{})
	silent := answering(t, "", true)
	p.Set([]string{silent, "127.0.0.1:1"})
	for _, addr := range []string{silent, "127.0.0.1:1", "", "x\ny"} {
		if conn, err := direct.Ask(socket, addr, patience); conn != nil || err != nil {
			t.Errorf("%q: handed out %v, %v", addr, conn, err)
		}
	}
	if conn, err := direct.Ask(filepath.Join(t.TempDir(), "none"), silent, patience); err == nil {
		t.Errorf("without a pool: %v", conn)
	}
}

func TestPoolIsClosed(t *testing.T) {
	r := serve(t, stubborn)
	p := direct.NewPool(direct.PoolConfig{Dial: dial})
	p.Set([]string{r.addr})
	p.Close()
	p.Set([]string{r.addr})
	if conn := p.Take(r.addr); conn != nil {
		t.Error("a pool that is closed hands out")
		conn.Close()
	}
}
