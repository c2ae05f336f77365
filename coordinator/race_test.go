package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
)

// Agents, readers, a verifier and stops all at once, for the race detector; and every
// agent is released.
func TestAllAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const n = 64
		var builders []string
		for i := range n {
			builders = append(builders, fmt.Sprintf("b%d", i))
		}
		h, _ := start(t, coordinator.Config{
			Builders: builders, Quorum: n / 2, Journal: &memory{},
			Log:      slog.New(slog.NewTextHandler(io.Discard, nil)),
			Dispatch: dispatch{nothing, nothing},
		})
		ctx := context.Background()

		var readers sync.WaitGroup
		done := make(chan struct{})
		for i := range 4 {
			readers.Go(func() {
				var last int64
				for {
					s := h.Follow(last, 1+i*100)
					if v, ok := s.Snapshot(); ok {
						last = v.Event
					}
					go func() { <-done; s.Close() }()
					for e := range s.C() {
						if e.Number != last+1 {
							t.Errorf("event %d after %d", e.Number, last)
						}
						last = e.Number
					}
					if !errors.Is(s.Err(), coordinator.ErrSlow) {
						return
					}
				}
			})
		}
		readers.Go(func() { // verifies who joins, as dispatch does
			var revision int64
			for v := h.View(); v.Phase < coordinator.Stopping; v = h.Await(ctx, revision, time.Second) {
				if v.Revision < revision {
					t.Errorf("revision %d after %d", v.Revision, revision)
				}
				revision = v.Revision
				for _, b := range v.Builders {
					if b.State == coordinator.Joined && !b.Leaving {
						h.Note(b.ID, "asking")
						h.Verified(b.ID, 1, 1)
					}
				}
			}
		})

		var agents sync.WaitGroup
		for i, name := range builders {
			agents.Go(func() {
				time.Sleep(time.Duration(i) * time.Second / 4) // the last comes after the stop
				ticket, _, err := h.CheckIn(ctx, node(name), checkIn(name, uuid.New()))
				if i%3 == 0 && err == nil { // restarts once
					go h.AwaitTeardown(ctx, node(name), ticket.ID, 15*time.Second)
					ticket, _, err = h.CheckIn(ctx, node(name), checkIn(name, uuid.New()))
				}
				if err == nil {
					_, err = h.keep(name, ticket.ID, time.Duration(i)*time.Millisecond)
				}
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		if _, err := h.Gathered(ctx); err != nil {
			t.Error(err)
		}
		var stops sync.WaitGroup
		for i := range 4 {
			stops.Go(func() {
				req := coordinator.StopRequest{Wait: time.Minute}
				if i%2 == 1 {
					req.Builders = []string{builders[i], builders[n-1]}
				}
				if _, err := h.Stop(ctx, req); err != nil {
					t.Error(err)
				}
			})
		}
		stops.Wait()
		agents.Wait()
		if report, err := h.Stop(ctx, coordinator.StopRequest{Wait: time.Minute}); err != nil || report.Phase != coordinator.Stopped {
			t.Errorf("last stop = %s, %v", report.Phase, err)
		}
		close(done)
		readers.Wait()
	})
}
