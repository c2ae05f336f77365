package dispatch_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
)

func TestNothingIsWrittenAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := build(t, "b1", "b2", "b3")
		release := make(chan struct{})
		r.check = func(_ context.Context, m nix.Machine) error {
			if m.Name == "b2" {
				<-release
			}
			return nil
		}
		r.run()
		r.join(1, "b1")
		r.join(2, "b2")
		settle()
		r.wantListed("b1", true)
		if err := r.d.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.wantListed("b1", false)
		close(release)
		r.join(3, "b3")
		pass(time.Minute)
		r.wantListed("b2", false)
		r.wantListed("b3", false)
		r.wantState("b2", coordinator.Joined)
		r.wantState("b3", coordinator.Joined)
		if err := r.d.Close(t.Context()); err != nil {
			t.Errorf("the second Close: %v", err)
		}
	})
}

// TestCloseRacesWithChecks runs in real time, so that the race detector and the scheduler
// have their say.
func TestCloseRacesWithChecks(t *testing.T) {
	for range 30 {
		r := build(t, "b1", "b2", "b3", "b4")
		var wg sync.WaitGroup
		closed := make(chan struct{})
		var checks atomic.Int32
		r.check = func(context.Context, nix.Machine) error {
			if checks.Add(1) == 2 {
				wg.Go(func() {
					if err := r.d.Close(context.Background()); err != nil {
						t.Error(err)
					}
					close(closed)
				})
			}
			return nil
		}
		r.run()
		for n, name := range []string{"b1", "b2", "b3", "b4"} {
			r.join(n+1, name)
		}
		<-closed
		for _, name := range []string{"b1", "b2", "b3", "b4"} {
			r.wantListed(name, false)
		}
		r.end()
		wg.Wait()
		if text := r.text(r.files.Machines); text != "" {
			t.Errorf("machines after all is over:\n%s", text)
		}
	}
}

func TestRestoreBeforeRunTouchesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := build(t, "b1")
		r.newDispatcher()
		if err := r.d.Restore(t.Context()); err != nil {
			t.Error(err)
		}
		r.run()
		r.join(1, "b1")
		pass(time.Minute)
		if entries, err := os.ReadDir(r.dir); err != nil || len(entries) != 0 {
			t.Errorf("there is something: %v, %v", entries, err)
		}
		if n := r.restarted(); n != 0 {
			t.Errorf("the daemon was restarted %d times", n)
		}
	})
}

func TestRestoreDoesAllItCanAndTheRestLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := build(t, "b1")
		r.put(r.files.NixConf, "x = 1\n")
		var broken atomic.Bool
		r.restart = func(context.Context) error {
			if broken.Load() {
				return errors.New("systemd says no")
			}
			return nil
		}
		r.run()
		r.join(1, "b1")
		settle()
		config := r.text(r.files.SSHConfig)
		if err := errors.Join(os.Remove(r.files.SSHConfig), os.Mkdir(r.files.SSHConfig, 0o755)); err != nil {
			t.Fatal(err)
		}
		broken.Store(true)
		err := r.d.Restore(t.Context())
		for _, want := range []string{"systemd says no", r.files.SSHConfig} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Restore = %v; want it to say %q", err, want)
			}
		}
		if diff := cmp.Diff("x = 1\n", r.text(r.files.NixConf)); diff != "" {
			t.Errorf("nix.conf (-want +got):\n%s", diff)
		}
		if text := r.text(r.files.KnownHosts) + r.text(r.files.Machines); text != "" {
			t.Errorf("left behind:\n%s", text)
		}

		if err := os.Remove(r.files.SSHConfig); err != nil {
			t.Fatal(err)
		}
		r.put(r.files.SSHConfig, config)
		broken.Store(false)
		before := r.restarted()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if err := r.d.Restore(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if r.text(r.files.SSHConfig) != "" {
			t.Errorf("ssh_config has still:\n%s", r.text(r.files.SSHConfig))
		}
		if n := r.restarted() - before; n != 1 {
			t.Errorf("the daemon was restarted %d times by 4 calls, want once", n)
		}
	})
}

func TestRestoreWaitsForTheFirstRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := build(t, "b1")
		r.restart = func(context.Context) error {
			time.Sleep(3 * time.Second)
			return nil
		}
		r.run()
		settle()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.d.Restore(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Restore with 1 s = %v", err)
		}
		if r.text(r.files.NixConf) != "" {
			t.Error("nix.conf waited for the daemon")
		}
		if err := r.d.Restore(t.Context()); err != nil {
			t.Error(err)
		}
		if n := r.restarted(); n != 2 {
			t.Errorf("the daemon was restarted %d times, want 2: it had read our nix.conf", n)
		}
	})
}
