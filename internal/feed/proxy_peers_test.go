package feed_test

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/feed"
)

// part answers with so many bytes of a NAR of this size, and then does what then says.
func part(size int64, sent int, then func(r *http.Request)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		_, _ = w.Write(make([]byte, sent))
		_ = http.NewResponseController(w).Flush()
		then(r)
	})
}

func stalls(r *http.Request) { <-r.Context().Done() }
func breaks(*http.Request)   { panic(http.ErrAbortHandler) }

func answers(status int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
}

// As long as Nix has got nothing, another peer is as good, whatever the first one does.
func TestProxyTurnsToTheNextPeer(t *testing.T) {
	size := stock(t, 10).paths[0].NarSize
	for name, h := range map[string]http.Handler{
		"says nothing":     http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { stalls(r) }),
		"says only a head": part(size, 0, stalls),
		"lacks the path":   http.NotFoundHandler(),
		"is full":          answers(http.StatusServiceUnavailable),
		"forbids":          answers(http.StatusForbidden),
		"redirects":        http.RedirectHandler("http://127.0.0.1:1/", http.StatusFound),
		"has another size": part(size-8, 10, breaks),
		"has any size":     http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _ = http.NewResponseController(w).Flush() }),
		"hangs up":         http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }),
		"is gone":          nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := stock(t, 10)
			for _, other := range []string{"b2", "b3", "b4"} {
				if h == nil {
					m.at(other, "127.0.0.1:1")
				} else {
					m.peer(other, h)
				}
			}
			m.peer("b5", m.honest())
			m.open()
			for range 3 {
				m.wantWhole(0)
			}
			if s := m.Stats(); s.Taken.Paths != 3 || s.Missed != 0 {
				t.Errorf("it counts %+v", s)
			}
		})
	}
}

// When nobody gives a path Nix is told so at once, until the peers get another chance.
func TestProxyLeavesAPeerAlone(t *testing.T) {
	m := stock(t, 10, 10)
	var asked atomic.Int32
	m.peer("b2", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked.Add(1)
		panic(http.ErrAbortHandler)
	}))
	m.open(func(cfg *feed.ProxyConfig) { cfg.Shun = time.Second })
	if got := m.told(0); got != http.StatusOK {
		t.Fatalf("at first: %d", got)
	}
	m.wantNone(0)
	before := asked.Load()
	for n := range m.paths {
		if got := m.told(n); got != http.StatusNotFound {
			t.Errorf("path %d of a peer that failed: %d", n, got)
		}
		m.wantNone(n)
	}
	if asked.Load() != before {
		t.Error("it is asked again")
	}
	if s := m.Stats(); s.Missed != 3 {
		t.Errorf("it counts %+v, want 3 missed", s)
	}
	for deadline := time.Now().Add(patience); m.told(0) != http.StatusOK; {
		if time.Now().After(deadline) {
			t.Fatal("the peer gets no other chance")
		}
	}
}

// A peer that does not have one path may have others.
func TestProxyRemembersWhatAPeerLacks(t *testing.T) {
	m := stock(t, 10, 10)
	honest := m.honest()
	m.peer("b2", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, hashOf(m.paths[0])) {
			http.NotFound(w, r)
			return
		}
		honest.ServeHTTP(w, r)
	}))
	m.open()
	m.wantNone(0)
	if got := m.told(0); got != http.StatusNotFound {
		t.Errorf("of what it lacks: %d", got)
	}
	if got := m.told(1); got != http.StatusOK {
		t.Errorf("of what it has: %d", got)
	}
	m.wantWhole(1)
}

// What Nix has a part of can't be had from another peer: it never looks whole. Asked again,
// it comes from one that has not failed.
func TestProxyCutsWhatBreaksOff(t *testing.T) {
	const half = 1 << 20
	size := stock(t, 2*half).paths[0].NarSize
	for name, h := range map[string]http.Handler{
		"stalls": part(size, half, stalls),
		"ends":   part(size, half, breaks),
		"drips":  drip(size),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := stock(t, 2*half)
			m.peer("b2", h)
			m.open()
			if status, got, err := get(t, m.nar(0)); err == nil {
				t.Errorf("half a NAR comes without an error: %d, %d bytes", status, len(got))
			}
			if got := m.told(0); got != http.StatusNotFound {
				t.Errorf("then: %d", got)
			}
			m.wantNone(0)
		})
	}
}

// drip gives a byte now and then.
func drip(size int64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		for r.Context().Err() == nil {
			_, _ = w.Write([]byte{0})
			_ = http.NewResponseController(w).Flush()
			<-time.After(10 * time.Millisecond)
		}
	})
}

// Lies are passed on: Nix knows the hash, and looks.
func TestProxyBelievesNobody(t *testing.T) {
	m := stock(t, 10)
	lie := bytes.Repeat([]byte{'x'}, int(m.paths[0].NarSize))
	m.peer("b2", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(lie) }))
	m.open()
	if status, got, err := get(t, m.nar(0)); err != nil || status != http.StatusOK || !bytes.Equal(got, lie) {
		t.Errorf("%d, %v, %q", status, err, got)
	}
}

// All of a crowd are served, and few at a time by one peer.
func TestProxyTakesTurns(t *testing.T) {
	m := stock(t, 64<<10)
	honest := m.honest()
	var now, most atomic.Int32
	m.peer("b2", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for before := most.Load(); n > before && !most.CompareAndSwap(before, n); before = most.Load() {
		}
		honest.ServeHTTP(w, r)
	}))
	m.open(func(cfg *feed.ProxyConfig) { cfg.First, cfg.Stall = patience, patience })
	var crowd sync.WaitGroup
	for range 100 {
		crowd.Go(func() { m.wantWhole(0) })
	}
	crowd.Wait()
	// A peer may still be returning from what the proxy has all of.
	if n := most.Load(); n > 2*16 {
		t.Errorf("%d were fetched at a time", n)
	}
}
