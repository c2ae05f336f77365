package main

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
)

// A person's own machines file, served without a cluster: what stands in it counts, and what is
// changed counts soon.
func TestSchedulerServesAMachinesFile(t *testing.T) {
	dir := t.TempDir()
	file, socket := filepath.Join(dir, "machines"), filepath.Join(dir, "s")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	line := "ssh-ng://b1 " + hostSystem() + " - 1 2 kvm"
	write(line + " # mine\n")

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, in := io.Pipe()
	serving, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	a := &app{stdout: in, log: slog.New(slog.DiscardHandler)}
	go func() {
		ended <- a.schedule(serving, schedulerOptions{socket: socket, machines: file, builders: "@" + file})
	}()
	if said, err := bufio.NewReader(out).ReadString('\n'); err != nil || said != "serving "+socket+", machines: 1\n" {
		t.Fatalf("said %q, %v", said, err)
	}

	c, err := scheduler.Dial(ctx, socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if diff := cmp.Diff("@"+file, c.Builders()); diff != "" {
		t.Errorf("builders (-want +got):\n%s", diff)
	}
	say := func(m scheduler.Message) {
		t.Helper()
		if err := c.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(want scheduler.Message) {
		t.Helper()
		got, err := c.Recv(ctx)
		if err != nil {
			t.Fatal(err)
		}
		got.Waited = 0
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("message (-want +got):\n%s", diff)
		}
	}
	say(scheduler.Message{Op: scheduler.OpTry, Build: &scheduler.Build{Derivation: "d", System: hostSystem(), Features: []string{"kvm"}}})
	hear(scheduler.Message{Op: scheduler.OpAccept, Machine: "ssh-ng://b1"})
	say(scheduler.Message{Op: scheduler.OpQueue})
	hear(scheduler.Message{Op: scheduler.OpRun, Machine: "ssh-ng://b1", Line: line})

	write("ssh-ng://b2 - - 1 1 kvm\nssh-ng://b2 - - 1\n")
	hear(scheduler.Message{Op: scheduler.OpLost, Machine: "ssh-ng://b1", Reason: "it is gone"})
	say(scheduler.Message{Op: scheduler.OpDone, Outcome: scheduler.OutcomeMoved})
	say(scheduler.Message{Op: scheduler.OpQueue, Tries: 1, Avoid: []string{"ssh-ng://b1"}})
	hear(scheduler.Message{Op: scheduler.OpRun, Machine: "ssh-ng://b2", Line: "ssh-ng://b2 - - 1 1 kvm"})

	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := c.Recv(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("the connection did not end: %v", err)
	}
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is left")
	}
}

// A file that can't be understood changes nothing; one that is gone names no machines.
func TestFollowMachines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := scheduler.New(scheduler.Config{})
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "machines")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go (&app{log: slog.New(slog.DiscardHandler)}).followMachines(ctx, file, "", s)
		for _, step := range []struct {
			text string
			want map[string]int
		}{
			{"ssh://b1", map[string]int{"ssh://b1": 0}},
			{"ssh://b1 - - many", map[string]int{"ssh://b1": 0}},
			{strings.Repeat("# long\n", 200_000), map[string]int{"ssh://b1": 0}},
			{"ssh://b2", map[string]int{"ssh://b2": 0}},
			{"", map[string]int{}},
		} {
			if err := os.WriteFile(file, []byte(step.text), 0o644); err != nil {
				t.Fatal(err)
			}
			time.Sleep(machinesPause + time.Millisecond)
			synctest.Wait()
			if diff := cmp.Diff(step.want, s.Running()); diff != "" {
				t.Errorf("machines of %.20q (-want +got):\n%s", step.text, diff)
			}
		}
	})
}

func TestMachinesOf(t *testing.T) {
	got, err := machinesOf("/tmp/m1?system-features=foo - - 0 0.25\nb2 builtin,riscv64-linux - 3 - a b\nb2\n")
	if err != nil {
		t.Fatal(err)
	}
	here := []string{hostSystem()}
	want := []scheduler.Machine{
		{Name: "/tmp/m1?system-features=foo", State: scheduler.Ready, Line: "/tmp/m1?system-features=foo - - 0 0.25", Systems: here, Speed: 250},
		{Name: "ssh://b2", State: scheduler.Ready, Line: "b2 builtin,riscv64-linux - 3 - a b", Systems: []string{"builtin", "riscv64-linux"},
			Slots: 3, Speed: 1000, Features: []string{"a"}, Mandatory: []string{"b"}},
		{Name: "ssh://b2 (2)", State: scheduler.Ready, Line: "b2", Systems: here, Slots: 1, Speed: 1000},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("machines (-want +got):\n%s", diff)
	}
}

func TestSchedulerMetrics(t *testing.T) {
	s, err := scheduler.New(scheduler.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s.Set([]scheduler.Machine{{Name: "b1", Systems: []string{"x86_64-linux", "i686-linux"}, Slots: 1}})
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(schedulerCollector(s)); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]int)
	for _, f := range families {
		got[f.GetName()] = len(f.GetMetric())
	}
	want := map[string]int{
		"nix_builders_queue_length":      2,
		"nix_builders_builds_running":    1,
		"nix_builders_build_tries_total": 4,
		"nix_builders_builds_total":      5,
		"nix_builders_queue_seconds":     1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}
