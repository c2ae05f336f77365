package coordinator_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
)

func TestConfigRefused(t *testing.T) {
	many := make([]string, 257)
	for i := range many {
		many[i] = fmt.Sprintf("b%d", i)
	}
	for _, tc := range []struct {
		cfg coordinator.Config
		say string
	}{
		{coordinator.Config{Builders: []string{"b"}}, "cluster id"},
		{coordinator.Config{ID: strings.Repeat("x", 513), Builders: []string{"b"}}, "cluster id"},
		{coordinator.Config{ID: "c"}, "0 builders"},
		{coordinator.Config{ID: "c", Builders: many}, "257 builders"},
		{coordinator.Config{ID: "c", Builders: []string{"b", "-"}}, `"-"`},
		{coordinator.Config{ID: "c", Builders: []string{"b", ""}}, `""`},
		{coordinator.Config{ID: "c", Builders: []string{"b1", "B1"}}, `"b1" and "B1"`},
		{coordinator.Config{ID: "c", Builders: []string{"b.1", "b-1"}, Label: sanitize}, `"b.1" and "b-1"`},
		{coordinator.Config{ID: "c", Builders: []string{"b"}, Label: func(string) string { return "" }}, "no host name"},
		{coordinator.Config{ID: "c", Builders: []string{"b"}, Quorum: 2}, "quorum"},
		{coordinator.Config{ID: "c", Builders: []string{"b"}, Quorum: -1}, "quorum"},
		{coordinator.Config{ID: "c", Builders: []string{"b"}, Lease: -1}, "lease"},
		{coordinator.Config{ID: "c", Builders: []string{"b"}, GatherTimeout: -1}, "gather timeout"},
	} {
		if _, err := coordinator.New(tc.cfg); err == nil || !strings.Contains(err.Error(), tc.say) {
			t.Errorf("New = %v, want an error that says %s", err, tc.say)
		}
	}
	if _, err := coordinator.New(coordinator.Config{ID: "c", Builders: many, MaxBuilders: 257}); err != nil {
		t.Errorf("New with more builders allowed = %v", err)
	}
}
