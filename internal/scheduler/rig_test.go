package scheduler_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/pipenet"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
)

// A rig is a scheduler in a bubble, served over pipes.
type rig struct {
	*scheduler.Scheduler
	t   *testing.T
	ln  *pipenet.Listener
	log *strings.Builder // debug level; to be read when all is at rest
	end func() error     // ends Serve
}

// newRig serves until the test ends.
func newRig(t *testing.T, cfg scheduler.Config) *rig {
	t.Helper()
	r := &rig{t: t, ln: pipenet.Listen("100.64.0.1:1"), log: new(strings.Builder)}
	cfg.Builders = "@/etc/nix/machines"
	cfg.Log = slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, err := scheduler.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.Scheduler = s
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, r.ln) }()
	r.end = sync.OnceValue(func() error {
		cancel()
		return <-served
	})
	t.Cleanup(func() {
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// A hook is one connection, as package hook would have it.
type hook struct {
	*scheduler.Client
	t *testing.T
}

func (r *rig) hook() *hook {
	r.t.Helper()
	conn, err := r.ln.Dial(r.t.Context(), netip.MustParseAddr("100.64.0.1"))
	if err != nil {
		r.t.Fatal(err)
	}
	c, err := scheduler.NewClient(r.t.Context(), conn)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return &hook{c, r.t}
}

func (h *hook) send(m scheduler.Message) {
	h.t.Helper()
	if err := h.Send(m); err != nil {
		h.t.Fatal(err)
	}
	synctest.Wait()
}

// hears takes the message that is there, which is to be want. Line and Waited count only if
// want has them.
func (h *hook) hears(want scheduler.Message) {
	h.t.Helper()
	synctest.Wait()
	select {
	case got := <-h.Messages():
		if want.Line == "" {
			got.Line = ""
		}
		if want.Waited == 0 {
			got.Waited = 0
		}
		if want.Op == scheduler.OpDecline && want.Reason == "" {
			got.Reason = ""
		}
		if diff := cmp.Diff(want, got); diff != "" {
			h.t.Fatalf("message (-want +got):\n%s", diff)
		}
	default:
		h.t.Fatalf("there is no message %s", want.Op)
	}
}

func (h *hook) hearsNothing() {
	h.t.Helper()
	synctest.Wait()
	select {
	case m, ok := <-h.Messages():
		h.t.Fatalf("heard %+v (%t)", m, ok)
	default:
	}
}

// isCutOff expects that the scheduler has ended the connection.
func (h *hook) isCutOff() {
	h.t.Helper()
	synctest.Wait()
	select {
	case m, ok := <-h.Messages():
		if ok {
			h.t.Fatalf("heard %+v", m)
		}
	default:
		h.t.Fatal("the connection is still there")
	}
}

func (h *hook) try(b scheduler.Build, answer, machine string) {
	h.t.Helper()
	h.send(scheduler.Message{Op: scheduler.OpTry, Build: &b})
	h.hears(scheduler.Message{Op: answer, Machine: machine})
}

func (h *hook) queue(inputs ...string) {
	h.t.Helper()
	h.send(scheduler.Message{Op: scheduler.OpQueue, Inputs: inputs})
}

func (h *hook) runs(machine string) {
	h.t.Helper()
	h.hears(scheduler.Message{Op: scheduler.OpRun, Machine: machine})
}

func (h *hook) done(outcome string) {
	h.t.Helper()
	h.send(scheduler.Message{Op: scheduler.OpDone, Outcome: outcome})
}

// building is a hook whose build runs on the machine that is best for it, which is to be that.
func (r *rig) building(b scheduler.Build, machine string) *hook {
	r.t.Helper()
	h := r.hook()
	h.try(b, scheduler.OpAccept, machine)
	h.queue()
	h.runs(machine)
	return h
}

// queued is a hook whose build waits.
func (r *rig) queued(b scheduler.Build) *hook {
	r.t.Helper()
	h := r.hook()
	h.try(b, scheduler.OpAccept, "")
	h.queue()
	h.hearsNothing()
	return h
}

func (r *rig) wantRunning(want map[string]int) {
	r.t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, r.Running()); diff != "" {
		r.t.Fatalf("running (-want +got):\n%s", diff)
	}
}

func drv(name string) string { return "/nix/store/" + name + ".drv" }

func build(name string, features ...string) scheduler.Build {
	return scheduler.Build{Derivation: drv(name), System: "x86_64-linux", Features: features}
}

func armBuild(name string) scheduler.Build {
	return scheduler.Build{Derivation: drv(name), System: "aarch64-linux"}
}

func machine(name string, slots int, change ...func(*scheduler.Machine)) scheduler.Machine {
	m := scheduler.Machine{
		Name: name, State: scheduler.Ready, Line: "ssh-ng://" + name + " x86_64-linux - " + fmt.Sprint(slots),
		Systems: []string{"x86_64-linux"}, Features: []string{"big-parallel", "kvm"}, Slots: slots,
	}
	for _, c := range change {
		c(&m)
	}
	return m
}

func arm(m *scheduler.Machine)     { m.Systems = []string{"aarch64-linux"} }
func coming(m *scheduler.Machine)  { m.State = scheduler.Coming }
func resting(m *scheduler.Machine) { m.State = scheduler.Resting }

func speed(n int) func(*scheduler.Machine) {
	return func(m *scheduler.Machine) { m.Speed = n }
}

func memory(n int64) func(*scheduler.Machine) {
	return func(m *scheduler.Machine) { m.Memory = n }
}
