package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
)

func TestAFailedCheckIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := build(t, "b1", "b2")
		r.check = func(_ context.Context, m nix.Machine) error {
			if m.Name == "b1" && r.checked("b1") < 4 {
				return errors.New("connection refused")
			}
			return nil
		}
		r.run()
		r.join(1, "b1")
		r.join(2, "b2")
		settle()
		r.wantState("b1", coordinator.Joined)
		r.wantState("b2", coordinator.StateReady)
		pass(10 * time.Second)
		r.wantState("b1", coordinator.StateReady)
		r.wantListed("b1", true)
		if n := r.checked("b2"); n != 1 {
			t.Errorf("b2 was checked %d times", n)
		}
	})
}

func TestAHangingCheckHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := build(t, "b1", "b2")
		var answers atomic.Bool
		r.check = func(ctx context.Context, m nix.Machine) error {
			if m.Name == "b1" && !answers.Load() {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		r.run()
		r.join(1, "b1")
		settle()
		r.join(2, "b2")
		settle()
		r.wantState("b2", coordinator.StateReady)
		r.wantState("b1", coordinator.Joined)
		pass(41 * time.Second)
		if b := r.builder("b1"); !strings.Contains(b.Reason, "did not answer within 40s") {
			t.Errorf("b1's reason is %q", b.Reason)
		}
		answers.Store(true)
		pass(time.Minute)
		r.wantState("b1", coordinator.StateReady)
	})
}

func TestACheckThatItsBuilderDidNotOutliveCountsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := build(t, "b1")
		release := make(chan struct{})
		r.check = func(_ context.Context, m nix.Machine) error {
			if r.checked("b1") == 1 {
				<-release // it hears of no cancellation, and succeeds in the end
				return nil
			}
			return errors.New("the new one does not answer")
		}
		r.run()
		old := r.join(1, "b1")
		settle()
		id := r.join(1, "b1") // a new instance
		if old == id {
			t.Fatal("the new instance has the old id")
		}
		settle()
		close(release)
		pass(5 * time.Second)
		r.wantState("b1", coordinator.Joined)
		r.wantListed("b1", false)
	})
}

func TestChecksRunInParallelWithinABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var names []string
		for n := range 100 {
			names = append(names, fmt.Sprintf("b%d", n))
		}
		r := build(t, names...)
		running, most := 0, 0
		r.check = func(context.Context, nix.Machine) error {
			r.mu.Lock()
			running++
			most = max(most, running)
			r.mu.Unlock()
			time.Sleep(time.Second)
			r.mu.Lock()
			running--
			r.mu.Unlock()
			return nil
		}
		r.run()
		start := time.Now()
		for n, name := range names {
			r.join(n+1, name)
		}
		for v := r.cluster.View(); v.Phase == coordinator.Gathering; {
			v = r.cluster.Await(t.Context(), v.Revision, time.Hour)
		}
		if took := time.Since(start); took != 4*time.Second {
			t.Errorf("100 checks of 1 s took %v, want 4 s", took)
		}
		if most != 32 {
			t.Errorf("%d checks ran at a time, want 32", most)
		}
		for _, name := range names {
			r.wantListed(name, true)
		}
	})
}
