package httpapi_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/httpapi"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// Builders get the key with their ticket, and pages as whoever knows the paths has them.
func TestPaths(t *testing.T) {
	page := apiclient.PathPage{
		Cursor: 8,
		Peers:  []apiclient.PathPeer{{Name: "b2", Node: "n-b2", Address: "100.64.0.12", Port: 8379}},
		Paths: []apiclient.StorePath{{
			Path: "/nix/store/x", NarHash: "sha256:0", NarSize: 12, References: []string{}, Signature: "k:s",
			Deriver: new("/nix/store/x.drv"), Holders: []string{"b2"},
		}},
	}
	share := func(cfg *httpapi.Config) {
		cfg.PathKey = "run-1:key"
		cfg.Paths = func(ctx context.Context, after int64, wait time.Duration) apiclient.PathPage {
			if after < page.Cursor {
				return page
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
			return apiclient.PathPage{Cursor: after, Peers: page.Peers, Paths: []apiclient.StorePath{}}
		}
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, share)
		if ticket := w.join(builder1); ticket.PathKey == nil || *ticket.PathKey != "run-1:key" {
			t.Errorf("the ticket has the key %v", ticket.PathKey)
		}
		got, err := w.api(builder1).Paths(t.Context(), 7, time.Minute)
		if diff := cmp.Diff(page, got); diff != "" || err != nil {
			t.Errorf("page: %v (-want +got):\n%s", err, diff)
		}
		start := time.Now()
		got, err = w.api(builder1).Paths(t.Context(), got.Cursor, time.Minute)
		if err != nil || len(got.Paths) != 0 || len(got.Peers) != 1 {
			t.Errorf("when nothing changes: %+v, %v", got, err)
		}
		within(t, "a query for what is new", time.Since(start), time.Minute)
	})
	t.Run("not shared", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			if ticket := w.join(builder1); ticket.PathKey != nil {
				t.Errorf("the ticket has the key %q", *ticket.PathKey)
			}
			got, err := w.api(builder1).Paths(t.Context(), 3, time.Minute)
			want := apiclient.PathPage{Cursor: 3, Peers: []apiclient.PathPeer{}, Paths: []apiclient.StorePath{}}
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("page: %v (-want +got):\n%s", err, diff)
			}
		})
	})
	t.Run("the server ends", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, share)
			answered := make(chan error, 1)
			go func() {
				_, err := w.api(builder1).Paths(t.Context(), page.Cursor, 5*time.Minute)
				answered <- err
			}()
			synctest.Wait()
			start := time.Now()
			w.stop()
			if err := <-answered; err != nil {
				t.Errorf("a query that waited: %v", err)
			}
			within(t, "the end", time.Since(start), 0)
		})
	})
}
