package e2e_test

import (
	"os"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/act"
)

// The workflow that the first version of this action gave its users runs as it stands:
// Tailscale's own names, an OAuth client's secret and nothing beside it, four platforms.
func TestActionSeed(t *testing.T) {
	seed, err := os.ReadFile("testdata/seed-workflow.yml")
	if err != nil {
		t.Fatal(err)
	}
	s := newStage(t)
	p := s.begin(t, act.Workflow{
		Text: string(seed), Secrets: oauth(),
		// It checks nothing out: its users do.
		Repository: s.repository(t, systems...), CheckedOut: true,
	})
	p.ends(true)
	p.outcomes(map[string]string{
		"config": "1 succeeded, 0 failed", "builder": "4 succeeded, 0 failed", "coordinator": "1 succeeded, 0 failed",
	})
	for _, j := range p.Jobs() {
		if j.ID != "config" {
			contains(t, j.String(), j.Output(), "with the SHA-256 of the release")
		}
	}
	p.builds(false, 0)
	p.summarised()
}
