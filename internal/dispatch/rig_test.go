package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/dispatch"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
)

const (
	clusterID = "owner/repo/1/1"
	hostKey   = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPIQCZc54poJ8vqawd8TraNryQeJnvH1eLpIDgbiqymM"
)

// rig is a real cluster with a dispatcher on files of a test's own. What stands in for the
// rest of the world are functions that a test may set before run.
type rig struct {
	t       *testing.T
	dir     string
	files   dispatch.Files
	cfg     dispatch.Config
	cluster *coordinator.Cluster
	d       *dispatch.Dispatcher
	ran     chan error // what Run returned
	end     context.CancelFunc

	check   func(context.Context, nix.Machine) error
	restart func(context.Context) error
	peer    func(node string) (dispatch.Peer, error)

	mu       sync.Mutex
	restarts int
	checks   map[string]int // by machine name
}

// build makes a rig whose cluster expects builders; run starts it.
func build(t *testing.T, builders ...string) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{
		t: t, dir: dir, checks: map[string]int{},
		files: dispatch.Files{
			Machines: dir + "/etc/nix/machines", NixConf: dir + "/etc/nix/nix.conf",
			SSHConfig: dir + "/root/.ssh/config", KnownHosts: dir + "/state/known_hosts",
			Hosts: dir + "/etc/hosts", UserConf: dir + "/root/.config/nix/nix.conf",
		},
		check:   func(context.Context, nix.Machine) error { return nil },
		restart: func(context.Context) error { return nil },
		peer: func(node string) (dispatch.Peer, error) {
			return dispatch.Peer{Addr: addrOf(node), HostKeys: []string{"ssh-rsa broken", hostKey}}, nil
		},
	}
	r.cfg = dispatch.Config{
		ID: clusterID, Files: r.files,
		Peer: func(_ context.Context, node string) (dispatch.Peer, error) { return r.peer(node) },
		Check: func(ctx context.Context, m nix.Machine) (nix.Store, error) {
			r.mu.Lock()
			r.checks[m.Name]++
			r.mu.Unlock()
			return nix.Store{Version: "2.34.8", Trusted: true}, r.check(ctx, m)
		},
		Restart: func(ctx context.Context) error {
			r.mu.Lock()
			r.restarts++
			r.mu.Unlock()
			return r.restart(ctx)
		},
	}
	if len(builders) == 0 {
		return r // the test makes its own cluster
	}
	r.cluster = r.newCluster(coordinator.Config{Builders: builders, Lease: time.Hour, GatherTimeout: 10 * time.Hour})
	return r
}

func (r *rig) newCluster(cfg coordinator.Config) *coordinator.Cluster {
	r.t.Helper()
	cfg.ID = clusterID
	c, err := coordinator.New(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *rig) newDispatcher() {
	r.t.Helper()
	d, err := dispatch.New(r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.d = d
}

// run starts the cluster and the dispatcher; they end with the test.
func (r *rig) run() {
	r.t.Helper()
	if r.d == nil {
		r.newDispatcher()
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup

	d, cluster, ran := r.d, r.cluster, make(chan error, 1)
	r.ran = ran
	wg.Go(func() { cluster.Run(ctx) })
	wg.Go(func() { ran <- d.Run(ctx, cluster) })
	r.end = func() { cancel(); wg.Wait() }
	r.t.Cleanup(r.end)
}

// addrOf gives the address of a node called node-N.
func addrOf(node string) netip.Addr {
	var n byte
	fmt.Sscanf(node, "node-%d", &n)
	return netip.AddrFrom4([4]byte{100, 64, 0, n})
}

// join checks builder N in under its name.
func (r *rig) join(n int, name string) uuid.UUID { return r.joinAs(n, name, uuid.New(), offer()) }

func (r *rig) joinAs(n int, name string, instance uuid.UUID, o coordinator.Offer) uuid.UUID {
	r.t.Helper()
	ticket, _, err := r.cluster.CheckIn(r.t.Context(), r.node(n, name), coordinator.CheckIn{
		Cluster: clusterID, Name: name, Instance: instance, Offer: o,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return ticket.ID
}

func (r *rig) node(n int, name string) coordinator.Node {
	id := fmt.Sprintf("node-%d", n)
	return coordinator.Node{ID: id, Name: strings.ToLower(name), Addr: addrOf(id)}
}

func offer() coordinator.Offer {
	return coordinator.Offer{
		Systems: []string{"x86_64-linux", "aarch64-linux"}, Cores: 4, MemoryBytes: 16 << 30,
		StoreFreeBytes: 1 << 30, Features: []string{"benchmark", "kvm"}, NixVersion: "2.34.8",
		StoreProgram: "/nix/var/nix/profiles/default/bin/nix-daemon",
	}
}

// builder gives a builder as the cluster has it.
func (r *rig) builder(name string) coordinator.Builder {
	r.t.Helper()
	for _, b := range r.cluster.View().Builders {
		if b.Name == name {
			return b
		}
	}
	r.t.Fatalf("no builder %s", name)
	return coordinator.Builder{}
}

// wantState fails the test unless the builder is in state.
func (r *rig) wantState(name string, state coordinator.State) {
	r.t.Helper()
	if b := r.builder(name); b.State != state {
		r.t.Errorf("%s is %s (%s), want %s", name, b.State, b.Reason, state)
	}
}

// text gives a file's text; empty if there is none.
func (r *rig) text(path string) string {
	r.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.t.Fatal(err)
	}
	return string(data)
}

// listed tells whether the machines file has the machine.
func (r *rig) listed(name string) bool {
	return strings.Contains(r.text(r.files.Machines), "ssh-ng://root@"+name+"?")
}

func (r *rig) wantListed(name string, want bool) {
	r.t.Helper()
	if r.listed(name) != want {
		r.t.Errorf("machines lists %s: %v, want %v:\n%s", name, !want, want, r.text(r.files.Machines))
	}
}

// put makes a file, and the directories above it.
func (r *rig) put(path, text string) {
	r.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// settle waits until nothing happens any more without time passing.
func settle() { synctest.Wait() }

// pass lets time pass.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// checked counts the checks of a machine that began.
func (r *rig) checked(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.checks[name]
}

// restarted counts the restarts of the daemon that began.
func (r *rig) restarted() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.restarts
}
