package coordinator_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
)

// BenchmarkRelease is a stop of many builders that poll: from the call to the last
// departure, and what a waiting poll costs.
func BenchmarkRelease(b *testing.B) {
	for _, n := range []int{256, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			builders := make([]string, n)
			for i := range builders {
				builders[i] = fmt.Sprintf("b%d", i)
			}
			ctx := context.Background()
			for b.Loop() {
				b.StopTimer()
				c, err := coordinator.New(coordinator.Config{ID: clusterID, Builders: builders, MaxBuilders: n})
				if err != nil {
					b.Fatal(err)
				}
				ids := make([]uuid.UUID, n)
				for i, name := range builders {
					ticket, _, err := c.CheckIn(ctx, node(name), checkIn(name, uuid.New()))
					if err != nil {
						b.Fatal(err)
					}
					ids[i] = ticket.ID
				}
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				var agents sync.WaitGroup
				for i, name := range builders {
					agents.Go(func() {
						n := node(name)
						if _, err := c.AwaitTeardown(ctx, n, ids[i], time.Minute); err != nil {
							b.Error(err)
						}
						if err := c.Depart(ctx, n, ids[i], coordinator.Departure{Reason: coordinator.DepartTeardown}); err != nil {
							b.Error(err)
						}
					})
				}
				time.Sleep(100 * time.Millisecond) // for all to wait; a late one is released too
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapInuse+after.StackInuse-before.HeapInuse-before.StackInuse)/float64(n), "B/poll")
				b.StartTimer()
				if _, err := c.Stop(ctx, coordinator.StopRequest{Wait: time.Minute}); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				agents.Wait()
				b.StartTimer()
			}
		})
	}
}
