package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// Why gathering failed is told as it was then, not as it is when the quick ones have left.
func TestWhileGathering(t *testing.T) {
	one := func(state apiclient.BuilderState, reason string) apiclient.Builder {
		return apiclient.Builder{Name: "b1", State: state, Reason: reason}
	}
	const released = "left as it was told to"
	for _, tt := range []struct {
		name                   string
		phase                  apiclient.Phase // before
		before, failed, report apiclient.Builder
	}{
		{
			"its store did not answer", apiclient.PhaseGathering,
			one("joined", "open its store: refused"), one("departed", released), one("joined", "open its store: refused"),
		},
		{
			"it was ready", apiclient.PhaseGathering,
			one("ready", ""), one("departed", released), one("ready", ""),
		},
		{
			"it was lost", apiclient.PhaseGathering,
			one("joined", "checked in"), one("lost", "silent"), one("lost", "silent"),
		},
		{
			"it came and went unseen", apiclient.PhaseGathering,
			one("expected", "never checked in"), one("departed", "cancelled"), one("departed", "cancelled"),
		},
		{
			"nothing was seen before", "",
			apiclient.Builder{}, one("departed", released), one("departed", released),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := apiclient.Cluster{Phase: tt.phase, Builders: []apiclient.Builder{tt.before}}
			failed := apiclient.Cluster{Phase: apiclient.PhaseFailed, Builders: []apiclient.Builder{tt.failed}}
			want := apiclient.Cluster{Phase: apiclient.PhaseFailed, Builders: []apiclient.Builder{tt.report}}
			if diff := cmp.Diff(want, whileGathering(before, failed)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.failed, failed.Builders[0]); diff != "" {
				t.Errorf("what was given has changed (-before +after):\n%s", diff)
			}
		})
	}
}
