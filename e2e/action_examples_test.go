package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/act"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
)

// an example is what is special about one of the workflows in examples.
type example struct {
	systems  []string // that it has machines for; if nil, x86_64-linux
	secrets  map[string]string
	vars     map[string]string
	env      map[string]string
	builders int
	// coordinatorToo says that it lets the coordinator's own cores count.
	coordinatorToo bool
	late           int      // so many builders it does not wait for, and they may have nothing left to do
	says           []string // what its coordinator prints, beside what Nix does
}

// Each workflow in examples does for its users what it says.
func TestActionExamples(t *testing.T) {
	s := newStage(t)
	login := s.Lab.LoginServer()
	examples := map[string]example{
		"eight-lines.yml":    {secrets: oauth(), builders: 2},
		"four-platforms.yml": {secrets: oauth(), builders: 4, systems: systems},
		"nixos-farm.yml":     {secrets: oauth(), builders: 4, late: 1, coordinatorToo: true, says: []string{"-farm"}},
		"cache-after-stop.yml": {
			secrets:  map[string]string{"TS_OAUTH_SECRET": control.OAuthSecret, "CACHIX_AUTH_TOKEN": "token-of-the-cache"},
			builders: 3, systems: systems[:2], says: []string{"-my-package to my-cache"},
		},
		"workload-identity.yml": {
			vars: map[string]string{"TS_CLIENT_ID": control.FederatedID}, builders: 2, systems: systems[:2],
			says: []string{"::add-mask::eyJ"},
			env: map[string]string{
				"ACTIONS_ID_TOKEN_REQUEST_URL":   control.OIDCRequestURL(login),
				"ACTIONS_ID_TOKEN_REQUEST_TOKEN": control.OIDCRequestToken,
			},
		},
		"self-hosted-control.yml": {
			secrets: map[string]string{"TAILNET_AUTH_KEY": control.CIKey}, builders: 2, systems: systems[:2],
			vars: map[string]string{"TAILNET_LOGIN_SERVER": login},
		},
	}
	files, err := filepath.Glob("../examples/*.yml")
	if err != nil || len(files) < len(examples) {
		t.Fatalf("%d examples, want at least %d: %v", len(files), len(examples), err)
	}
	s.together(t, func(t *testing.T) {
		for _, file := range files {
			t.Run(filepath.Base(file), func(t *testing.T) {
				t.Parallel()
				e, ok := examples[filepath.Base(file)]
				if !ok {
					t.Fatal("nobody knows what it needs: say so in this test")
				}
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if e.systems == nil {
					e.systems = systems[:1]
				}
				p := s.begin(t, act.Workflow{
					Text: string(text), Event: "push", Secrets: e.secrets, Vars: e.vars, Env: e.env,
					Repository: s.repository(t, e.systems...),
				})
				p.ends(true)
				p.outcomes(map[string]string{
					"plan": "1 succeeded, 0 failed", "coordinator": "1 succeeded, 0 failed",
					"builder": fmt.Sprintf("%d succeeded, 0 failed", e.builders),
				})
				p.builds(e.coordinatorToo, e.late)
				p.summarised()
				for _, want := range e.says {
					if got := p.job("coordinator").Output(); !strings.Contains(got, want) {
						t.Errorf("the coordinator does not say %q:\n%s", want, got)
					}
				}
			})
		}
	})
}
