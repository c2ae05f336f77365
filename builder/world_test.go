package builder_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/builder"
	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/httpapi"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/pipenet"
)

const clusterID = "owner/repo/123/1"

// tailnet is a tailnet in memory, for a synctest bubble. Its nodes are called
// b1, b2... at 100.64.0.1, 100.64.0.2... and carry the builder tag.
type tailnet struct {
	mu    sync.Mutex
	hosts map[string]*pipenet.Listener // by IP:PORT; guarded by mu
	open  chan struct{}                // closed while packets pass; guarded by mu
}

func newTailnet() *tailnet {
	n := &tailnet{hosts: map[string]*pipenet.Listener{}, open: make(chan struct{})}
	close(n.open)
	return n
}

// cut makes every packet wait until the returned function is called.
func (n *tailnet) cut() (heal func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open = make(chan struct{})
	return sync.OnceFunc(func() { close(n.open) })
}

func (n *tailnet) passable() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.open
}

// serve puts a handler's server on the tailnet until the returned function is
// called.
func (n *tailnet) serve(t *testing.T, addr string, run func(context.Context, net.Listener) error) (stop func()) {
	t.Helper()
	l := pipenet.Listen(addr)
	n.mu.Lock()
	n.hosts[addr] = l
	n.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx, l) }()
	stop = sync.OnceFunc(func() {
		n.mu.Lock()
		delete(n.hosts, addr)
		n.mu.Unlock()
		cancel()
		l.Close()
		<-done
	})
	t.Cleanup(stop)
	return stop
}

// handle serves a handler that is no coordinator of ours.
func (n *tailnet) handle(t *testing.T, addr string, h http.HandlerFunc) {
	t.Helper()
	n.serve(t, addr, func(ctx context.Context, l net.Listener) error {
		srv := &http.Server{Handler: h}
		context.AfterFunc(ctx, func() { srv.Close() })
		return srv.Serve(l)
	})
}

// transport is how the node at from reaches the others.
func (n *tailnet) transport(from netip.Addr) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			select {
			case <-n.passable():
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
			n.mu.Lock()
			l := n.hosts[addr]
			n.mu.Unlock()
			if l == nil {
				return nil, errors.New("connection refused")
			}
			conn, err := l.Dial(ctx, from)
			if err != nil {
				return nil, err
			}
			return &cutConn{Conn: conn, net: n, closed: make(chan struct{})}, nil
		},
	}
}

// cutConn holds its bytes back while the tailnet is cut.
type cutConn struct {
	net.Conn
	net    *tailnet
	once   sync.Once
	closed chan struct{}
}

func (c *cutConn) pass() error {
	select {
	case <-c.net.passable():
		return nil
	case <-c.closed:
		return net.ErrClosed
	}
}

func (c *cutConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if cut := c.pass(); cut != nil {
		return 0, cut
	}
	return n, err
}

func (c *cutConn) Write(p []byte) (int, error) {
	if err := c.pass(); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (c *cutConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func addrOf(node string) netip.Addr {
	var i byte
	fmt.Sscanf(node, "b%d", &i)
	return netip.AddrFrom4([4]byte{100, 64, 0, i})
}

func whoIs(_ context.Context, remote string) (httpapi.Caller, error) {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return httpapi.Caller{}, err
	}
	name := fmt.Sprintf("b%d", ap.Addr().As4()[3])
	return httpapi.Caller{ID: "n-" + name, Name: name, Addr: ap.Addr(), Tags: []string{httpapi.DefaultBuilderTag}}, nil
}

// newCluster starts a cluster, which ends with the returned function.
func newCluster(t *testing.T, cfg coordinator.Config) (*coordinator.Cluster, func()) {
	t.Helper()
	if cfg.ID == "" {
		cfg.ID = clusterID
	}
	cluster, err := coordinator.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); cluster.Run(ctx) }()
	stop := sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return cluster, stop
}

// coordinate serves the real API over a cluster at addr.
func (n *tailnet) coordinate(t *testing.T, addr string, cluster *coordinator.Cluster) (stop func()) {
	t.Helper()
	host, _, _ := net.SplitHostPort(addr)
	server, err := httpapi.New(httpapi.Config{Cluster: cluster, WhoIs: whoIs, Hosts: []string{host}})
	if err != nil {
		t.Fatal(err)
	}
	return n.serve(t, addr, func(ctx context.Context, l net.Listener) error { return server.Serve(ctx, l) })
}

// agent is a builder that runs in a test.
type agent struct {
	builder.Config
	transport *http.Transport
	out       lines
	begin     time.Time
	cancel    context.CancelCauseFunc
	result    chan error
}

// newAgent returns an agent on the node, which looks at the coordinators at the
// addresses.
func (n *tailnet) newAgent(node string, addrs ...string) *agent {
	a := &agent{transport: n.transport(addrOf(node)), result: make(chan error, 1)}
	a.Config = builder.Config{
		Cluster:   clusterID,
		Name:      node,
		Transport: a.transport,
		Out:       &a.out,
		Coordinators: func(context.Context) ([]builder.Candidate, error) {
			return candidates(addrs...), nil
		},
		Offer: func(context.Context) (apiclient.Offer, error) { return offer(), nil },
		Vitals: func(context.Context) (apiclient.Vitals, error) {
			return apiclient.Vitals{CpuPercent: 12.4, MemoryFreeBytes: 10 << 30, StoreFreeBytes: 50 << 30, Builds: 2}, nil
		},
	}
	return a
}

func candidates(addrs ...string) (cs []builder.Candidate) {
	for _, addr := range addrs {
		cs = append(cs, builder.Candidate{Name: "coordinator-" + addr[len("100.64.0."):len(addr)-len(":8378")], Base: "http://" + addr + "/v1"})
	}
	return cs
}

func offer() apiclient.Offer {
	return apiclient.Offer{
		Systems: []string{"x86_64-linux"}, Cores: 4, MemoryBytes: 16 << 30, StoreFreeBytes: 50 << 30,
		Features: []string{"benchmark"}, NixVersion: "2.26.3", StoreProgram: "/nix/bin/nix-daemon",
	}
}

// start runs the agent until it ends or the test does.
func (a *agent) start(t *testing.T) *agent {
	t.Helper()
	it, err := builder.New(a.Config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	a.cancel, a.begin = cancel, time.Now()
	go func() {
		a.result <- it.Run(ctx)
		close(a.result)
	}()
	t.Cleanup(func() {
		cancel(errors.New("the test is over"))
		for range a.result {
		}
		a.transport.CloseIdleConnections()
	})
	return a
}

// wait returns how long the agent lived, and how it ended.
func (a *agent) wait() (time.Duration, error) {
	err := <-a.result
	return time.Since(a.begin), err
}

// running reports whether the agent has not ended.
func (a *agent) running() bool {
	synctest.Wait()
	return len(a.result) == 0
}

// lines collects what the agent says.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// states returns the state of each builder, by name.
func states(c *coordinator.Cluster) string {
	var s []string
	for _, b := range c.View().Builders {
		s = append(s, b.Name+" "+b.State.String())
	}
	slices.Sort(s)
	return strings.Join(s, ", ")
}

// stop stops the cluster and returns who left.
func stop(t *testing.T, c *coordinator.Cluster) coordinator.StopReport {
	t.Helper()
	report, err := c.Stop(context.Background(), coordinator.StopRequest{By: "the test", Wait: 30 * time.Second})
	if err != nil {
		t.Errorf("stop: %v", err)
	}
	return report
}
