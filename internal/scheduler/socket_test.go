package scheduler_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/unixsock"
)

// serve serves a scheduler of three machines with four slots each on a real socket.
func serve(t testing.TB) (s *scheduler.Scheduler, socket string) {
	t.Helper()
	s, err := scheduler.New(scheduler.Config{MaxWaiting: 2000})
	if err != nil {
		t.Fatal(err)
	}
	s.Set([]scheduler.Machine{machine("b1", 4), machine("b2", 4), machine("b3", 4)})
	socket = filepath.Join(t.TempDir(), "s")
	ln, err := unixsock.Listen(socket, -1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return s, socket
}

// buildOnce takes one build through all that a hook says of it.
func buildOnce(ctx context.Context, socket string, b scheduler.Build, inputs []string) error {
	c, err := scheduler.Dial(ctx, socket)
	if err != nil {
		return err
	}
	defer c.Close()
	expect := func(say scheduler.Message, want string) error {
		if err := c.Send(say); err != nil {
			return err
		}
		m, err := c.Recv(ctx)
		if err == nil && m.Op != want {
			err = fmt.Errorf("%s is answered with %s", say.Op, m.Op)
		}
		return err
	}
	if err := expect(scheduler.Message{Op: scheduler.OpTry, Build: &b}, scheduler.OpAccept); err != nil {
		return err
	}
	if err := expect(scheduler.Message{Op: scheduler.OpQueue, Inputs: inputs}, scheduler.OpRun); err != nil {
		return err
	}
	return c.Send(scheduler.Message{Op: scheduler.OpDone, Outcome: scheduler.OutcomeBuilt})
}

func somePaths(n int) []string {
	var paths []string
	for i := range n {
		paths = append(paths, fmt.Sprintf("/nix/store/%032d-some-package-1.2.3", i))
	}
	return paths
}

// Many hooks at once over a real socket, while machines come and go in state.
func TestManyHooksOverASocket(t *testing.T) {
	s, socket := serve(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	inputs := somePaths(100)
	var hooks sync.WaitGroup
	for i := range 200 {
		hooks.Go(func() {
			if err := buildOnce(ctx, socket, build(fmt.Sprint("d", i)), inputs); err != nil {
				t.Error(err)
			}
		})
	}
	for i := range 20 {
		b1 := machine("b1", 4)
		b1.State = []scheduler.State{scheduler.Ready, scheduler.Resting}[i%2]
		s.Set([]scheduler.Machine{b1, machine("b2", 4), machine("b3", 4)})
		s.Stats()
	}
	hooks.Wait()
	for { // the last hooks' connections may still be ending
		stats := s.Stats()
		if n := stats.Ended[scheduler.OutcomeBuilt]; n == 200 {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("not all ended: %+v", stats)
		}
	}
}

func TestNobodyIsThere(t *testing.T) {
	if c, err := scheduler.Dial(t.Context(), filepath.Join(t.TempDir(), "s")); err == nil {
		c.Close()
		t.Error("reached a scheduler")
	}
}

// A scheduler that hangs is given up when the caller's patience ends.
func TestDialIsBounded(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := unixsock.Listen(socket, -1) // and nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if c, err := scheduler.Dial(ctx, socket); err == nil {
		c.Close()
		t.Error("reached a scheduler")
	}
}

// 1,000 builds through 12 slots, all of whose hooks are there from the beginning.
func BenchmarkThousandBuilds(b *testing.B) {
	for _, n := range []int{0, 500} {
		b.Run(fmt.Sprint(n, " inputs"), func(b *testing.B) {
			_, socket := serve(b)
			inputs := somePaths(n)
			const builds = 1000
			for b.Loop() {
				var hooks sync.WaitGroup
				for i := range builds {
					hooks.Go(func() {
						if err := buildOnce(b.Context(), socket, build(fmt.Sprint("d", i)), inputs); err != nil {
							b.Error(err)
						}
					})
				}
				hooks.Wait()
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(builds*b.N), "µs/build")
			b.ReportMetric(0, "ns/op")
		})
	}
}
