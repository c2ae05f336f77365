package coordinator_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
)

const clusterID = "octo/repo/1234/1"

// harness is a cluster under test and shorthands for what builders do.
type harness struct {
	*coordinator.Cluster
	t        *testing.T
	instance sync.Map // by name: the uuid.UUID that join drew
}

// newCluster makes a cluster whose Run nobody calls.
func newCluster(t *testing.T, cfg coordinator.Config) *harness {
	t.Helper()
	if cfg.ID == "" {
		cfg.ID = clusterID
	}
	if cfg.Builders == nil {
		cfg.Builders = []string{"b1", "b2", "b3"}
	}
	c, err := coordinator.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &harness{Cluster: c, t: t}
}

// start makes a cluster that runs until the test ends, or until the returned
// function is called.
func start(t *testing.T, cfg coordinator.Config) (*harness, context.CancelFunc) {
	t.Helper()
	h := newCluster(t, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- h.Run(ctx) }()
	end := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Cleanup(end)
	return h, end
}

// bubble runs a test under fake time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func offer() coordinator.Offer {
	return coordinator.Offer{
		Systems: []string{"x86_64-linux", "i686-linux"}, Cores: 4, MemoryBytes: 16 << 30,
		StoreFreeBytes: 80 << 30, Features: []string{"big-parallel", "kvm"},
		NixVersion: "2.34.1", StoreProgram: "/nix/var/nix/profiles/default/bin/nix-daemon",
		HostKeys: []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5"},
	}
}

func checkIn(name string, instance uuid.UUID) coordinator.CheckIn {
	return coordinator.CheckIn{Cluster: clusterID, Name: name, Instance: instance, Offer: offer()}
}

// did are the vitals of a builder of which this was seen.
func did(peak int, busy float64) *coordinator.Vitals {
	return &coordinator.Vitals{CPUPercent: 50, MemoryFreeBytes: 8 << 30, PeakBuilds: &peak, BusySeconds: &busy}
}

// node is the node that the tailnet calls name; its id follows from it.
func node(name string) coordinator.Node {
	return coordinator.Node{ID: "n-" + name, Name: name, FQDN: name + ".tail.example.", Addr: netip.MustParseAddr("100.64.0.1")}
}

// join checks the builder in from the node of its name and returns its id.
func (h *harness) join(name string) uuid.UUID {
	h.t.Helper()
	instance := uuid.New()
	h.instance.Store(name, instance)
	ticket, _, err := h.CheckIn(context.Background(), node(name), checkIn(name, instance))
	if err != nil {
		h.t.Fatal(err)
	}
	return ticket.ID
}

// renew renews the check-in of a builder with these vitals, if it ever joined.
func (h *harness) renew(name string, v *coordinator.Vitals) {
	h.t.Helper()
	instance, ok := h.instance.Load(name)
	if !ok {
		return // it never joined
	}
	in := checkIn(name, instance.(uuid.UUID))
	in.Vitals = v
	if _, _, err := h.CheckIn(context.Background(), node(name), in); err != nil {
		h.t.Fatal(err)
	}
}

// drain drains a builder by name in the background, for longer than a test takes. It
// returns when that has begun, if it ever will.
func (h *harness) drain(name string) {
	go h.Stop(context.Background(), coordinator.StopRequest{Drain: 24 * time.Hour, Builders: []string{name}})
	synctest.Wait()
}

// silence lets a lease pass in which the builder is not heard and all others are.
func (h *harness) silence(name string) {
	for range 4 {
		for _, b := range h.View().Builders {
			if b.Name != name && b.State.Present() {
				h.poll(b.Name, b.ID)
			}
		}
		time.Sleep(coordinator.DefaultLease / 4)
		synctest.Wait()
	}
}

// short are vitals of a builder whose disk is nearly full.
func short() *coordinator.Vitals {
	total := int64(100 << 30)
	return &coordinator.Vitals{CPUPercent: 50, MemoryFreeBytes: 8 << 30, StoreFreeBytes: 9 << 30, StoreTotalBytes: &total, Builds: 2}
}

// ready is join, and the builder's store answers.
func (h *harness) ready(name string) uuid.UUID {
	h.t.Helper()
	id := h.join(name)
	if err := h.Verified(id, 4, 1); err != nil {
		h.t.Fatal(err)
	}
	return id
}

func (h *harness) depart(name string, id uuid.UUID) {
	h.t.Helper()
	err := h.Depart(context.Background(), node(name), id, coordinator.Departure{Reason: coordinator.DepartTeardown})
	if err != nil {
		h.t.Fatal(err)
	}
}

// poll polls without waiting.
func (h *harness) poll(name string, id uuid.UUID) (coordinator.Teardown, error) {
	return h.AwaitTeardown(context.Background(), node(name), id, 0)
}

func (h *harness) builder(name string) coordinator.Builder {
	h.t.Helper()
	for _, b := range h.View().Builders {
		if b.Name == name {
			return b
		}
	}
	h.t.Fatalf("no builder %s", name)
	panic("not reached")
}

func (h *harness) wantState(name string, want coordinator.State) {
	h.t.Helper()
	if b := h.builder(name); b.State != want {
		h.t.Errorf("%s is %s (%s), want %s", name, b.State, b.Reason, want)
	}
}

func (h *harness) wantPhase(want coordinator.Phase) {
	h.t.Helper()
	if v := h.View(); v.Phase != want {
		h.t.Errorf("the cluster is %s (%s), want %s", v.Phase, v.Reason, want)
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s = %v, want %v", what, err, want)
	}
}

// keep polls for the builder, as an agent does, until it is told to leave, and then
// departs after the delay. It returns what it was told.
func (h *harness) keep(name string, id uuid.UUID, delay time.Duration) (coordinator.Teardown, error) {
	for {
		teardown, err := h.AwaitTeardown(context.Background(), node(name), id, time.Minute)
		if errors.Is(err, coordinator.ErrNotYet) {
			continue
		}
		if err != nil {
			return teardown, err
		}
		time.Sleep(delay)
		return teardown, h.Depart(context.Background(), node(name), id, coordinator.Departure{Reason: coordinator.DepartTeardown})
	}
}

// memory is a journal that keeps a record as a file would: encoded.
type memory struct {
	mu     sync.Mutex
	data   []byte
	saves  int
	err    error         // of every Save
	delay  time.Duration // of every Save
	onSave func(coordinator.Record)
}

func (m *memory) Load() (record coordinator.Record, ok bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.data == nil {
		return record, false, nil
	}
	return record, true, json.Unmarshal(m.data, &record)
}

func (m *memory) Save(record coordinator.Record) error {
	m.mu.Lock()
	err, delay, onSave := m.err, m.delay, m.onSave
	m.mu.Unlock()
	time.Sleep(delay)
	if onSave != nil {
		onSave(record)
	}
	if err != nil {
		return err
	}
	data, err := json.Marshal(record)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.data = data
	m.saves++
	return err
}

func (m *memory) setErr(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

// set makes every later Save take so long.
func (m *memory) set(delay time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.delay = delay
}

// script is a Dispatch and journal that write down what is called.
type script struct {
	mu    sync.Mutex
	lines []string
}

func (s *script) add(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, line)
}

func (s *script) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.lines, "\n")
}

// dispatch is a Dispatch made of functions, on which nothing is built.
type dispatch struct{ close, restore func(context.Context) error }

func (d dispatch) Builds(context.Context) (map[string]int, error) { return nil, nil }

func (d dispatch) Close(ctx context.Context) error   { return d.close(ctx) }
func (d dispatch) Restore(ctx context.Context) error { return d.restore(ctx) }

// busy is a Dispatch with builds that run, by builder.
type busy map[string]int

func (busy) Close(context.Context) error                      { return nil }
func (busy) Restore(context.Context) error                    { return nil }
func (b busy) Builds(context.Context) (map[string]int, error) { return maps.Clone(b), nil }

func nothing(context.Context) error { return nil }

// Gathered waits until the cluster is ready, failed or stopping, or ctx ends.
func (h *harness) Gathered(ctx context.Context) (coordinator.View, error) {
	v := h.View()
	for {
		switch v.Phase {
		case coordinator.Ready:
			return v, nil
		case coordinator.Failed:
			return v, coordinator.ErrFailed
		case coordinator.Stopping, coordinator.Stopped:
			return v, coordinator.ErrStopping
		}
		if ctx.Err() != nil {
			return v, context.Cause(ctx)
		}
		v = h.Await(ctx, v.Revision, time.Hour)
	}
}
