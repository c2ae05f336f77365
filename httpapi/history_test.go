package httpapi_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

// The events of a cluster's life can be read at once, while it lives and when it is over.
func TestHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		api := w.api(reader)
		history := func() (all []string) {
			c, err := api.Cluster(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			events, err := api.History(t.Context(), c.Event)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				all = append(all, string(e.Type))
			}
			return all
		}
		if got := history(); got != nil {
			t.Errorf("before anything happened: %v", got)
		}
		w.join(builder1)
		w.join(builder2)
		if diff := cmp.Diff([]string{"builder.joined", "builder.joined"}, history()); diff != "" {
			t.Errorf("while it gathers (-want +got):\n%s", diff)
		}
		_, _ = w.cluster.Stop(t.Context(), stopNow)
		if diff := cmp.Diff([]string{"builder.joined", "builder.joined", "cluster.stopping"}, history()); diff != "" {
			t.Errorf("when it stops (-want +got):\n%s", diff)
		}

		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := api.History(gone, 1); err == nil {
			t.Error("a cancelled call succeeded")
		}
		if _, err := w.api(untagged).History(t.Context(), 1); err == nil {
			t.Error("a node without a grant reads the events")
		}
	})
}
