package coordinator_test

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/golden"
)

// Every transition is a line; what needs a person's eye is a warning, and a state that
// can't be saved an error.
func TestLog(t *testing.T) {
	var out bytes.Buffer
	journal := &memory{}
	h := newCluster(t, coordinator.Config{
		Builders: []string{"b1", "b2"}, Quorum: 1, Journal: journal,
		Log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			},
		})),
	})
	id := h.ready("b1")
	if err := h.Reject(h.join("b2"), "no nix"); err != nil {
		t.Fatal(err)
	}
	journal.setErr(errors.New("no space left on device"))
	h.Stop(t.Context(), coordinator.StopRequest{By: "tester"})
	journal.setErr(nil)
	h.depart("b1", id)
	golden.Equal(t, "log.golden", out.String())
}
