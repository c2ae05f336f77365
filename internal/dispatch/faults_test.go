package dispatch_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/dispatch"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
)

func TestFilesThatCanNotBeWritten(t *testing.T) {
	for _, file := range []func(*rig) string{
		func(r *rig) string { return r.files.Machines },
		func(r *rig) string { return r.files.SSHConfig },
		func(r *rig) string { return r.files.KnownHosts },
	} {
		synctest.Test(t, func(t *testing.T) {
			r := build(t, "b1")
			path := file(r)
			if err := os.MkdirAll(path, 0o755); err != nil { // no file can take its place
				t.Fatal(err)
			}
			r.run()
			r.join(1, "b1")
			pass(time.Second)
			r.wantState("b1", coordinator.Joined)
			if b := r.builder("b1"); !strings.Contains(b.Reason, path) || !strings.Contains(b.Reason, "not a regular file") {
				t.Errorf("b1's reason is %q", b.Reason)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			pass(time.Minute)
			r.wantState("b1", coordinator.StateReady)
			r.wantListed("b1", true)
		})
	}
}

// Only people's own commands need the hosts file.
func TestHostsFileThatCanNotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := build(t, "b1")
		if err := os.MkdirAll(r.files.Hosts, 0o755); err != nil {
			t.Fatal(err)
		}
		var log strings.Builder
		r.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		r.run()
		r.join(1, "b1")
		settle()
		r.wantState("b1", coordinator.StateReady)
		if !strings.Contains(log.String(), "names are not in the hosts file") {
			t.Errorf("nothing is said about the hosts file:\n%s", &log)
		}
	})
}

func TestMachinesGoEvenIfSSHConfigCanNotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := build(t, "b1", "b2")
		r.run()
		r.join(1, "b1")
		id := r.join(2, "b2")
		settle()
		r.wantListed("b2", true)
		if err := errors.Join(os.Remove(r.files.SSHConfig), os.Mkdir(r.files.SSHConfig, 0o755)); err != nil {
			t.Fatal(err)
		}
		if err := r.cluster.Depart(t.Context(), r.node(2, "b2"), id, coordinator.Departure{Reason: coordinator.DepartFailed}); err != nil {
			t.Fatal(err)
		}
		settle()
		r.wantListed("b2", false)
		r.wantListed("b1", true)
	})
}

func TestRunFailsWhenTheDaemonCanNotBeTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := build(t, "b1")
		if err := os.MkdirAll(r.files.NixConf, 0o755); err != nil {
			t.Fatal(err)
		}
		r.run()
		settle()
		if err := <-r.ran; err == nil || !strings.Contains(err.Error(), r.files.NixConf) {
			t.Errorf("Run = %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := build(t, "b1")
		r.restart = func(context.Context) error { return errors.New("the daemon does not come back") }
		r.run()
		r.join(1, "b1")
		settle()
		if err := <-r.ran; err == nil || !strings.Contains(err.Error(), "does not come back") {
			t.Errorf("Run = %v", err)
		}
		r.wantState("b1", coordinator.Joined)
	})
}

// memory is a journal in memory.
type memory struct {
	mu     sync.Mutex
	record coordinator.Record
	saved  bool
}

func (m *memory) Load() (coordinator.Record, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.record, m.saved, nil
}

func (m *memory) Save(r coordinator.Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.record, m.saved = r, true
	return nil
}

func TestASecondProcessKeepsWhatTheFirstWrote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		journal := &memory{}
		cfg := coordinator.Config{Builders: []string{"b1", "b2"}, Lease: time.Hour, Journal: journal}
		r := build(t)
		r.cluster = r.newCluster(cfg)
		r.run()
		r.join(1, "b1")
		r.join(2, "b2")
		settle()
		r.wantListed("b1", true)
		r.wantListed("b2", true)
		r.end() // as in a crash: nothing is restored

		var answers atomic.Bool
		r.check = func(context.Context, nix.Machine) error {
			r.wantListed("b1", true)
			r.wantListed("b2", true)
			time.Sleep(5 * time.Second)
			if !answers.Load() {
				return errors.New("not yet")
			}
			return nil
		}
		inner := r.peer
		r.peer = func(node string) (dispatch.Peer, error) {
			if node == "node-1" {
				time.Sleep(time.Second)
			}
			for _, name := range []string{"b1", "b2"} {
				if !strings.Contains(r.text(r.files.SSHConfig), "Host "+name+"\n") {
					t.Errorf("ssh_config does not know %s meanwhile", name)
				}
			}
			return inner(node)
		}
		r.cluster, r.d = r.newCluster(cfg), nil
		r.run()
		pass(4 * time.Second)
		r.wantState("b1", coordinator.StateReady)
		answers.Store(true)
		pass(time.Minute)
		r.wantListed("b1", true)
		r.wantListed("b2", true)
		if n := r.restarted(); n != 1 {
			t.Errorf("the daemon was restarted %d times; the second process had no reason to", n)
		}
		if err := r.d.Restore(t.Context()); err != nil {
			t.Error(err)
		}
		if n := r.restarted(); n != 2 {
			t.Errorf("the daemon was restarted %d times, want 2", n)
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	good := build(t, "b1").cfg
	for name, spoil := range map[string]func(*dispatch.Config){
		"no id":            func(c *dispatch.Config) { c.ID = "" },
		"relative path":    func(c *dispatch.Config) { c.Files.Machines = "machines" },
		"no path":          func(c *dispatch.Config) { c.Files.KnownHosts = "" },
		"no check":         func(c *dispatch.Config) { c.Check = nil },
		"negative jobs":    func(c *dispatch.Config) { c.MaxJobs = -1 },
		"negative timeout": func(c *dispatch.Config) { c.CheckTimeout = -1 },
	} {
		cfg := good
		spoil(&cfg)
		if _, err := dispatch.New(cfg); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := dispatch.New(good); err != nil {
		t.Error(err)
	}
}

func TestABuilderThatWasLostAndCameBackUnseenAnswersAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := build(t)
		r.cluster = r.newCluster(coordinator.Config{Builders: []string{"b1", "b2"}, Lease: 45 * time.Second, Quorum: 1})
		r.run()
		b1, b2 := uuid.New(), uuid.New()
		r.joinAs(1, "b1", b1, offer())
		pass(40 * time.Second)
		r.wantState("b1", coordinator.StateReady)

		// Another writer's lock keeps the dispatcher from looking.
		dir, err := os.Open(filepath.Dir(r.files.Machines))
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		r.joinAs(2, "b2", b2, offer())
		pass(6 * time.Second)
		r.wantState("b1", coordinator.Lost)
		r.joinAs(1, "b1", b1, offer())
		settle()
		r.wantState("b1", coordinator.Joined)
		if n := r.checked("b1"); n != 1 {
			t.Fatalf("b1 was checked %d times: the dispatcher looked", n)
		}
		if err := unix.Flock(int(dir.Fd()), unix.LOCK_UN); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second)
		r.wantState("b1", coordinator.StateReady)
		if n := r.checked("b1"); n != 2 {
			t.Errorf("b1 was checked %d times, want 2", n)
		}
	})
}

// What the first process wrote is kept for those that are still to be used, and only for
// them, while the second does not know yet whether they answer.
func TestASecondProcessKeepsNoLinesOfThoseThatGo(t *testing.T) {
	for _, slow := range []string{"the tailnet", "a store"} {
		synctest.Test(t, func(t *testing.T) {
			cfg := coordinator.Config{Builders: []string{"b1", "b2", "b3", "b4"}, Quorum: 4, Lease: time.Hour, Journal: &memory{}}
			r := build(t)
			r.cluster = r.newCluster(cfg)
			r.run()
			r.join(1, "b1")
			r.join(2, "b2")
			r.join(3, "b3")
			four := uuid.New()
			r.joinAs(4, "b4", four, offer())
			settle()
			r.end() // as in a crash: nothing is restored

			r.check = func(ctx context.Context, m nix.Machine) error {
				if slow == "a store" && m.Name == "b1" {
					time.Sleep(30 * time.Second)
				}
				return nil
			}
			inner := r.peer
			r.peer = func(node string) (dispatch.Peer, error) {
				if slow == "the tailnet" && node == "node-1" {
					time.Sleep(9 * time.Second)
				}
				return inner(node)
			}
			r.cluster, r.d = r.newCluster(cfg), nil
			r.run()
			settle()
			for _, name := range []string{"b1", "b2", "b3", "b4"} {
				r.wantListed(name, true)
			}
			id := r.builder("b2").ID
			if err := r.cluster.Depart(t.Context(), r.node(2, "b2"), id, coordinator.Departure{Reason: coordinator.DepartCancelled}); err != nil {
				t.Fatal(err)
			}
			go r.cluster.Stop(context.Background(), coordinator.StopRequest{Builders: []string{"b3"}, Drain: time.Second / 2})
			r.renew(4, "b4", four, offer(), 3)
			r.wantState("b3", coordinator.Draining)
			r.wantState("b4", coordinator.Cordoned)
			for _, name := range []string{"b2", "b3", "b4"} {
				r.wantListed(name, false)
			}
			r.wantListed("b1", true)
			pass(time.Minute)
			r.wantListed("b1", true)
		})
	}
}
