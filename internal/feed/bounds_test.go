package feed_test

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/feed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/pipenet"
)

// A peer may take as long as it likes for a path, and not long for a part of it.
func TestServerWaitsForNoPeer(t *testing.T) {
	store := t.TempDir()
	p := put(t, store, 1, 2<<20)
	synctest.Test(t, func(t *testing.T) {
		s := feed.NewServer(feed.ServerConfig{Follower: knowing(t, nil, p), StoreDir: store, Valid: always})
		dial := served(t, "100.64.0.2:8379", s)
		for pause, want := range map[time.Duration]bool{20 * time.Second: true, 40 * time.Second: false} {
			tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}
			defer tr.CloseIdleConnections()
			res, err := (&http.Client{Transport: tr}).Get("http://peer/nar/" + hashOf(p) + ".nar")
			if err != nil {
				t.Fatal(err)
			}
			var n int64
			for err == nil {
				time.Sleep(pause)
				var part int64
				part, err = io.CopyN(io.Discard, res.Body, 512<<10)
				n += part
			}
			if whole := err == io.EOF && n == p.NarSize; whole != want {
				t.Errorf("with %v for a part it gets %d of %d bytes, %v", pause, n, p.NarSize, err)
			}
		}
		if got, want := s.Given(), (feed.Count{Paths: 1, Bytes: p.NarSize}); got != want {
			t.Errorf("it counts %+v, want %+v", got, want)
		}
	})
}

// A crowd that peers have no turn for in time does without. In fake time.
func TestProxyDoesNotWaitForTurnsForEver(t *testing.T) {
	m := stock(t, 10)
	synctest.Test(t, func(t *testing.T) {
		nar := "nar/" + hashOf(m.paths[0]) + ".nar"
		nix := m.inMemory(t, part(m.paths[0].NarSize, 1, stalls), func(cfg *feed.ProxyConfig) { cfg.Stall = time.Hour })
		ctx, cancel := context.WithCancel(t.Context())
		for range 16 {
			go func() { nix.get(ctx, nar) }()
		}
		synctest.Wait()
		began := time.Now()
		res, err := nix.get(t.Context(), nar)
		if took := time.Since(began); err != nil || res.StatusCode != http.StatusNotFound || took > 11*time.Second {
			t.Errorf("after %v: %v, %v", took, res, err)
		}
		cancel()
	})
}

// Nix that takes its time, or goes, is no fault of the peer's; and the time that it had for
// one path is not counted when it asks for another over the same connection.
func TestProxyDoesNotBlamePeersForNix(t *testing.T) {
	m := stock(t, 1<<20)
	honest := m.honest()
	synctest.Test(t, func(t *testing.T) {
		nar := "nar/" + hashOf(m.paths[0]) + ".nar"
		nix := m.inMemory(t, honest)
		for range 2 {
			res, err := nix.get(t.Context(), nar)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Second)
			n, err := io.Copy(io.Discard, res.Body)
			if n != m.paths[0].NarSize || err != nil {
				t.Errorf("slow Nix gets %d bytes, %v", n, err)
			}
			time.Sleep(90 * time.Second)
			if res, err = nix.get(t.Context(), hashOf(m.paths[0])+".narinfo"); err != nil || res.StatusCode != http.StatusOK {
				t.Fatalf("later: %v, %v", res, err)
			}
			_, _ = io.Copy(io.Discard, res.Body) // the connection is free again
		}
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := nix.get(ctx, nar); err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		if res, err := nix.get(t.Context(), nar); err != nil || res.StatusCode != http.StatusOK {
			t.Errorf("after Nix went: %v, %v", res, err)
		}
		if n := nix.connections.Load(); n != 2 {
			t.Errorf("Nix used %d connections, want the first and one more after it went", n)
		}
	})
}

// served serves h in a bubble.
func served(t *testing.T, addr string, h http.Handler) (dial func(context.Context) (net.Conn, error)) {
	t.Helper()
	l := pipenet.Listen(addr)
	server := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })
	return func(ctx context.Context) (net.Conn, error) {
		return l.Dial(ctx, l.Addr().(*net.TCPAddr).AddrPort().Addr())
	}
}

// A nixInMemory asks a proxy for paths, in fake time.
type nixInMemory struct {
	http.Client
	connections atomic.Int32
}

func (n *nixInMemory) get(ctx context.Context, file string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://proxy/1/"+file, nil)
	if err != nil {
		return nil, err
	}
	return n.Do(r)
}

// inMemory starts a proxy and its one peer in a bubble.
func (m *market) inMemory(t *testing.T, h http.Handler, change ...func(*feed.ProxyConfig)) *nixInMemory {
	t.Helper()
	transport := func(dial func(context.Context) (net.Conn, error)) *http.Transport {
		tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}
		t.Cleanup(tr.CloseIdleConnections)
		return tr
	}
	m.at("b2", "100.64.0.2:8379")
	m.paths[0].Holders = []string{"b2"}
	cfg := feed.ProxyConfig{Follower: knowing(t, m.peers, m.paths...), Transport: transport(served(t, "100.64.0.2:8379", h))}
	for _, c := range change {
		c(&cfg)
	}
	proxy, err := feed.NewProxy(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { proxy.Close() })
	nix := new(nixInMemory)
	dial := served(t, "127.0.0.1:80", proxy)
	nix.Transport = transport(func(ctx context.Context) (net.Conn, error) {
		nix.connections.Add(1)
		return dial(ctx)
	})
	return nix
}
