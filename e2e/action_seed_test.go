package e2e_test

import (
	"os"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/act"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
)

// The workflow that the first version of this action gave its users runs as it stands.
func TestActionSeed(t *testing.T) {
	seed, err := os.ReadFile("testdata/seed-workflow.yml")
	if err != nil {
		t.Fatal(err)
	}
	b := act.Start(t, act.Config{})
	repo, err := b.Repository(t.Context(), "x86_64-linux", "aarch64-linux", "x86_64-darwin", "aarch64-darwin")
	if err != nil {
		t.Fatal(err)
	}
	r := b.Run(t, act.Workflow{
		Text: string(seed), Repository: repo, CheckedOut: true,
		Secrets: map[string]string{"TS_OAUTH_SECRET": control.OAuthSecret},
	})
	ok, err := r.Wait(within(t, 3*time.Minute))
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	t.Log(r.Log())
}
