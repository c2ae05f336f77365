package httpapi_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	contract "github.com/Misaka13514/setup-distributed-nix-builds"
	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/httpapi"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/pipenet"
)

const (
	clusterID = "owner/repo/123/1"
	serverIP  = "100.64.0.1"
	base      = "http://nix-coordinator:8378/v1"
)

// Nodes of the tests' tailnet.
var (
	self     = caller("n-self", "nix-coordinator", serverIP, httpapi.DefaultCoordinatorTag)
	builder1 = caller("n-b1", "b1", "100.64.0.11", httpapi.DefaultBuilderTag)
	builder2 = caller("n-b2", "b2", "100.64.0.12", httpapi.DefaultBuilderTag)
	builder3 = caller("n-b3", "b3", "100.64.0.13", httpapi.DefaultBuilderTag)
	other    = caller("n-other", "other-coordinator", "100.64.0.21", httpapi.DefaultCoordinatorTag)
	untagged = caller("n-plain", "laptop", "100.64.0.22")
	reader   = granted("n-reader", "reader", "100.64.0.23", "read")
	stopper  = granted("n-stopper", "stopper", "100.64.0.24", "stop")
	stranger = netip.MustParseAddr("100.64.0.99") // the tailnet does not know it
	sleepy   = netip.MustParseAddr("100.64.0.98") // the tailnet never says who it is
)

func caller(id, name, addr string, tags ...string) httpapi.Caller {
	return httpapi.Caller{
		ID: id, Name: name, FQDN: name + ".tn.test.", Addr: netip.MustParseAddr(addr), Tags: tags, Self: addr == serverIP,
	}
}

func granted(id, name, addr string, caps ...string) httpapi.Caller {
	c := caller(id, name, addr)
	c.User, c.Caps = name+"@example.com", caps
	return c
}

// whoIs answers as the tests' tailnet does.
func whoIs(ctx context.Context, remote string) (httpapi.Caller, error) {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return httpapi.Caller{}, err
	}
	if at.Addr() == sleepy {
		<-ctx.Done()
		return httpapi.Caller{}, context.Cause(ctx)
	}
	for _, c := range []httpapi.Caller{self, builder1, builder2, builder3, other, untagged, reader, stopper} {
		if c.Addr == at.Addr() {
			return c, nil
		}
	}
	return httpapi.Caller{}, errors.New("peer not found")
}

// world is a cluster that expects b1, b2 and b3, and its server. In a synctest bubble its
// network is in memory.
type world struct {
	cluster *coordinator.Cluster
	server  *httpapi.Server
	net     *pipenet.Listener
	t       *testing.T
	stop    func() // ends the server, as the end of the test does

	mu      sync.Mutex // guards what follows
	clients map[netip.Addr]*http.Client
}

// newWorld starts a world. Options change the server's configuration.
func newWorld(t *testing.T, options ...func(*httpapi.Config)) *world {
	t.Helper()
	w := &world{t: t, net: pipenet.Listen(serverIP + ":8378"), clients: map[netip.Addr]*http.Client{}}
	w.cluster = newCluster(t)
	w.server = newServer(t, w.cluster, options...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.server.Serve(ctx, w.net) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(w.stop)
	return w
}

func newCluster(t *testing.T) *coordinator.Cluster {
	t.Helper()
	cluster, err := coordinator.New(coordinator.Config{ID: clusterID, Builders: []string{"b1", "b2", "b3"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cluster.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return cluster
}

func newServer(t *testing.T, cluster *coordinator.Cluster, options ...func(*httpapi.Config)) *httpapi.Server {
	t.Helper()
	cfg := httpapi.Config{
		Cluster:  cluster,
		WhoIs:    whoIs,
		Self:     self,
		Hosts:    []string{"nix-coordinator", "nix-coordinator.tn.test"},
		Contract: contract.OpenAPI,
		Log:      slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
		Limits:   httpapi.Limits{Calls: 1000, CheckIns: 1000}, // what they bound has tests of its own
	}
	for _, option := range options {
		option(&cfg)
	}
	server, err := httpapi.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return server
}

// http returns a client whose connections come from the node at addr. Whatever it sends and
// gets is held to the contract.
func (w *world) http(addr netip.Addr) *http.Client {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.clients[addr] == nil {
		transport := w.net.Transport(addr)
		w.t.Cleanup(transport.CloseIdleConnections)
		w.clients[addr] = &http.Client{Transport: held(w.t, transport)}
	}
	return w.clients[addr]
}

// api returns the generated client on the node c.
func (w *world) api(c httpapi.Caller) *apiclient.API {
	w.t.Helper()
	api, err := apiclient.New(base, w.http(c.Addr))
	if err != nil {
		w.t.Fatal(err)
	}
	return api
}

// join checks c in and returns its ticket.
func (w *world) join(c httpapi.Caller) apiclient.Ticket {
	w.t.Helper()
	ticket, _, err := w.api(c).CheckIn(w.t.Context(), checkIn(c.Name))
	if err != nil {
		w.t.Fatal(err)
	}
	return ticket
}

// checkIn returns a check-in that is all right.
func checkIn(name string) apiclient.CheckIn {
	return apiclient.CheckIn{
		Cluster:  clusterID,
		Name:     name,
		Instance: uuid.NewSHA1(uuid.Nil, []byte(name)),
		Offer: apiclient.Offer{
			Systems:        []string{"x86_64-linux", "i686-linux"},
			Cores:          4,
			MemoryBytes:    16 << 30,
			StoreFreeBytes: 100 << 30,
			Features:       []string{"big-parallel", "kvm"},
			NixVersion:     "2.34.8",
			StoreProgram:   "/nix/var/nix/profiles/default/bin/nix-daemon",
			HostKeys:       &[]string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB"},
			MaxJobs:        new(3),
			SpeedFactor:    new(2),
		},
		Vitals: vitals(),
	}
}

func vitals() *apiclient.Vitals {
	return &apiclient.Vitals{
		CpuPercent: 12.5, MemoryFreeBytes: 8 << 30, StoreFreeBytes: 90 << 30, Builds: 2,
		PeakBuilds: new(3), BusySeconds: new(617.5),
	}
}

// within fails the test unless took is want, to the second that a fake clock can't miss.
func within(t *testing.T, what string, took, want time.Duration) {
	t.Helper()
	if took < want || took > want+time.Second/10 {
		t.Errorf("%s took %v, want %v", what, took, want)
	}
}
