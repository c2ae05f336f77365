package tailnet_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/tailnet"
)

func TestSameHost(t *testing.T) {
	tests := []struct {
		hostname, label string
		want            bool
	}{
		{"nix-builder-a1-1", "nix-builder-a1-1", true},
		{"nix-builder-a1-ubuntu-24.04-1", "nix-builder-a1-ubuntu-24-04-1", true},
		{"Nix_Builder", "nix-builder", true},
		{"b", "b-1", true},
		{"b", "b-12", true},
		{"b", "b-0", false},
		{"b", "b-01", false},
		{"b", "b-", false},
		{"b", "b-1-1", false},
		{"b", "b1", false},
		{"b", "ab", false},
		{"b2", "b1", false},
		{"b", "", false},
	}
	for _, tt := range tests {
		if got := tailnet.SameHost(tt.hostname, tt.label); got != tt.want {
			t.Errorf("SameHost(%q, %q) = %t", tt.hostname, tt.label, got)
		}
	}
}

func TestSecretHides(t *testing.T) {
	type config struct{ Key tailnet.Secret }
	c := config{"tskey-auth-hidden"}
	j, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", c.Key, "config", c)
	for _, shown := range []string{
		fmt.Sprint(c), fmt.Sprintf("%v %+v %#v %s %q", c, c, c, c, c.Key), string(j), log.String(), fmt.Errorf("bad: %v", c.Key).Error(),
	} {
		if strings.Contains(shown, "hidden") {
			t.Errorf("shows the secret: %s", shown)
		}
	}
}
