package feed_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nix-community/go-nix/pkg/narinfo"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/feed"
)

// A market is a proxy between a Nix and peers on real sockets. Each peer is said to hold all
// paths of one store.
type market struct {
	*feed.Proxy
	t     *testing.T
	store string
	paths []feed.Path
	peers []feed.Peer
	cache string // the proxy's URL
}

// stock makes paths with files of these sizes.
func stock(t *testing.T, sizes ...int) *market {
	t.Helper()
	m := &market{t: t, store: t.TempDir()}
	for i, size := range sizes {
		p := put(t, m.store, i+1, size)
		p.Signature = "run-1:" + strings.Repeat("A", 86) + "=="
		m.paths = append(m.paths, p)
	}
	return m
}

// honest is what a peer should be.
func (m *market) honest() http.Handler {
	return feed.NewServer(feed.ServerConfig{Follower: knowing(m.t, nil, m.paths...), StoreDir: m.store, Valid: always})
}

// peer adds one that answers with h.
func (m *market) peer(name string, h http.Handler) {
	m.t.Helper()
	web := httptest.NewServer(h)
	m.t.Cleanup(web.Close)
	m.at(name, web.Listener.Addr().String())
}

// at adds one that is at an address, or is not.
func (m *market) at(name, addr string) {
	m.peers = append(m.peers, feed.Peer{Name: name, Node: "n-" + name, Addr: netip.MustParseAddrPort(addr)})
}

// open starts the proxy.
func (m *market) open(change ...func(*feed.ProxyConfig)) {
	m.t.Helper()
	for i := range m.paths {
		m.paths[i].Holders = names(m.peers)
	}
	transport := &http.Transport{}
	cfg := feed.ProxyConfig{
		Follower: knowing(m.t, m.peers, m.paths...), Transport: transport,
		First: 500 * time.Millisecond, Stall: 500 * time.Millisecond,
	}
	for _, c := range change {
		c(&cfg)
	}
	var err error
	if m.Proxy, err = feed.NewProxy(cfg); err != nil {
		m.t.Fatal(err)
	}
	_, line, _ := strings.Cut(m.Conf("run-1:key"), " = ")
	m.cache, _, _ = strings.Cut(line, "\n")
	ended := make(chan error, 1)
	ctx, end := context.WithCancel(context.Background()) // t's ends before Cleanup
	go func() { ended <- m.Serve(ctx) }()
	m.t.Cleanup(func() {
		end()
		if err := <-ended; err != nil {
			m.t.Error(err)
		}
		transport.CloseIdleConnections()
	})
}

func hashOf(p feed.Path) string { return filepath.Base(p.Path)[:32] }

// told is how the proxy answers the question for a path's narinfo.
func (m *market) told(n int) int {
	m.t.Helper()
	status, _, err := get(m.t, m.cache+"/"+hashOf(m.paths[n])+".narinfo")
	if err != nil {
		m.t.Fatal(err)
	}
	return status
}

func (m *market) nar(n int) string { return m.cache + "/nar/" + hashOf(m.paths[n]) + ".nar" }

// wantWhole fetches a path.
func (m *market) wantWhole(n int) {
	m.t.Helper()
	status, got, err := get(m.t, m.nar(n))
	want := dump(m.t, filepath.Join(m.store, filepath.Base(m.paths[n].Path)))
	if err != nil || status != http.StatusOK || !bytes.Equal(got, want) {
		m.t.Errorf("path %d: %d, %v, %d bytes, want %d", n, status, err, len(got), len(want))
	}
}

func (m *market) wantNone(n int) {
	m.t.Helper()
	if status, _, err := get(m.t, m.nar(n)); err != nil || status != http.StatusNotFound {
		m.t.Errorf("path %d: %d, %v, want 404", n, status, err)
	}
}

func TestProxy(t *testing.T) {
	m := stock(t, 10, 3<<20)
	p := &m.paths[0]
	p.References = []string{p.Path, m.paths[1].Path}
	p.Deriver = "/nix/store/" + strings.Repeat("3", 32) + "-d.drv"
	p.CA = "fixed:r:" + narHash
	m.peer("b2", m.honest())
	m.open()

	_, info, err := get(t, m.cache+"/nix-cache-info")
	if want := "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 10\n"; err != nil || string(info) != want {
		t.Errorf("it says of itself %q, %v", info, err)
	}
	_, text, err := get(t, m.cache+"/"+hashOf(*p)+".narinfo")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		"StorePath: " + p.Path,
		"URL: nar/" + hashOf(*p) + ".nar",
		"Compression: none",
		"FileHash: " + narHash,
		fmt.Sprintf("FileSize: %d", p.NarSize),
		"NarHash: " + narHash,
		fmt.Sprintf("NarSize: %d", p.NarSize),
		"References: " + filepath.Base(p.Path) + " " + filepath.Base(m.paths[1].Path),
		"Deriver: " + filepath.Base(p.Deriver),
		"Sig: " + p.Signature,
		"CA: " + p.CA,
	}, "\n") + "\n"
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("narinfo (-want +got):\n%s", diff)
	}
	if _, err := narinfo.Parse(bytes.NewReader(text)); err != nil {
		t.Error(err)
	}
	res, err := http.Head(m.cache + "/" + hashOf(*p) + ".narinfo")
	if err != nil || res.StatusCode != http.StatusOK || res.ContentLength != int64(len(want)) {
		t.Errorf("HEAD: %v, %v", res, err)
	}

	m.wantWhole(0)
	m.wantWhole(1)
	stats := feed.ProxyStats{Taken: feed.Count{Paths: 2, Bytes: p.NarSize + m.paths[1].NarSize}}
	if diff := cmp.Diff(stats, m.Stats()); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}

	nobody := "/" + strings.Repeat("9", 32)
	for _, path := range []string{nobody + ".narinfo", "/nar" + nobody + ".nar", "/x", "/nar/x", "/nar/..%2fx.nar", "/log/x", nobody + ".ls", "/nar/.nar", "/.narinfo"} {
		if status, _, err := get(t, m.cache+path); err != nil || status != http.StatusNotFound {
			t.Errorf("%s: %d, %v, want 404", path, status, err)
		}
	}
}

// What the coordinator tells of a path is not passed on if Nix could take it for more.
func TestProxyTellsNothingThatCantBe(t *testing.T) {
	m := stock(t, 1, 1, 1, 1, 1, 1, 1)
	m.paths[0].CA = "fixed:r:" + narHash + "\nSig: x"
	m.paths[1].References = []string{"/nix/store/" + strings.Repeat("3", 32) + "-a\nDeriver: x"}
	m.paths[2].Deriver = "/etc/passwd"
	m.paths[3].NarHash = "none"
	m.paths[4].Signature = ""
	m.paths[5].NarSize = 0
	m.peer("b2", http.NotFoundHandler())
	m.open()
	for n, want := range []int{404, 404, 404, 404, 404, 404, 200} {
		if got := m.told(n); got != want {
			t.Errorf("path %d: %d, want %d", n, got, want)
		}
	}
}

// Each process of Nix gets a cache that it remembers nothing of.
func TestConf(t *testing.T) {
	m := stock(t)
	m.open()
	first, second := m.Conf("run-1:k"), m.Conf("run-1:k")
	if first == second || !strings.HasPrefix(first, "extra-substituters = http://127.0.0.1:") ||
		!strings.HasSuffix(first, "\nextra-trusted-public-keys = run-1:k\n") {
		t.Errorf("the first gets\n%s, the second\n%s", first, second)
	}
}
