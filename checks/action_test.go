package checks_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The action hands each input to the program as a setting that there is, under the name that
// one expects, and has the same default.
func TestActionInputsAreSettings(t *testing.T) {
	a, all := readAction(t), settings(t)
	handed := map[string]bool{}
	for _, s := range a.Runs.Steps {
		for name, value := range s.Env {
			if !strings.HasPrefix(name, "NIX_BUILDERS_") {
				continue
			}
			want, ok := all[name]
			if !ok {
				t.Errorf("step %q sets %s: nix-builders has no such setting", s.Name, name)
				continue
			}
			ref := inputRef.FindStringSubmatch(value)
			if ref == nil || ref[0] != value {
				t.Errorf("step %q sets %s to %q: want an input and nothing else", s.Name, name, value)
				continue
			}
			in, ok := a.Inputs.of[ref[1]]
			if !ok {
				t.Errorf("step %q sets %s from the input %s, which there is not", s.Name, name, ref[1])
				continue
			}
			handed[ref[1]] = true
			short := strings.ToLower(strings.TrimPrefix(name, "NIX_BUILDERS_"))
			if key := strings.Replace(short, "auth_key", "authkey", 1); ref[1] != short && ref[1] != "tailscale_"+key {
				t.Errorf("step %q sets %s from the input %s: their names are not alike", s.Name, name, ref[1])
			}
			if in.Default == nil {
				if !in.Required {
					t.Errorf("input %s is neither required nor has a default", ref[1])
				}
				continue
			}
			if !same(*in.Default, want) {
				t.Errorf("input %s has the default %q, and %s %q", ref[1], *in.Default, name, want)
			}
		}
	}
	var others []string
	for _, name := range a.Inputs.names {
		if !handed[name] {
			others = append(others, name)
		}
	}
	// These are the action's own.
	if diff := cmp.Diff([]string{"role", "free_disk", "magic_nix_cache", "binary"}, others); diff != "" {
		t.Errorf("inputs that are no setting (-want +got):\n%s", diff)
	}
}

// Both roles hear of whatever is the same for the whole cluster.
func TestActionTellsBothRoles(t *testing.T) {
	a := readAction(t)
	for _, name := range []string{
		"NIX_BUILDERS_HOSTNAME", "NIX_BUILDERS_TAGS", "NIX_BUILDERS_BUILDER_TAG", "NIX_BUILDERS_COORDINATOR_TAG",
		"NIX_BUILDERS_LEASE", "NIX_BUILDERS_BUILDER_TIMEOUT", "NIX_BUILDERS_MAX_JOBS", "NIX_BUILDERS_SPEED_FACTOR",
		"NIX_BUILDERS_EXTRA_NIX_CONFIG",
	} {
		for _, program := range []string{"builder", "coordinator"} {
			if s := stepThatRuns(t, a, program); s.Env[name] == "" {
				t.Errorf("step %q does not set %s", s.Name, name)
			}
		}
	}
}

func TestActionUsesEveryInput(t *testing.T) {
	a := readAction(t)
	var used strings.Builder
	for _, s := range a.Runs.Steps {
		used.WriteString(s.text() + "\n")
	}
	for _, name := range a.Inputs.names {
		if !regexp.MustCompile(`inputs\.` + name + `\b`).MatchString(used.String()) {
			t.Errorf("no step uses the input %s", name)
		}
	}
	for _, m := range regexp.MustCompile(`inputs\.(\w+)`).FindAllStringSubmatch(used.String(), -1) {
		if _, ok := a.Inputs.of[m[1]]; !ok {
			t.Errorf("a step uses the input %s, which there is not", m[1])
		}
	}
}

// A secret is handed to the one step that needs it, in its environment, which no other
// process gets.
func TestActionSecretsReachOneStep(t *testing.T) {
	a := readAction(t)
	for secret, command := range map[string]string{
		"tailscale_authkey": "join --detach \"$ROLE\"",
		"webhook_secret":    "coordinator",
	} {
		want := stepThatRuns(t, a, command).Name
		for _, s := range a.Runs.Steps {
			uses := strings.Count(s.text(), "inputs."+secret)
			inEnv := slices.Contains(slices.Collect(maps.Values(s.Env)), "${{ inputs."+secret+" }}")
			switch {
			case s.Name == want && (uses != 1 || !inEnv):
				t.Errorf("step %q uses %s %d times, want once, in its environment", s.Name, secret, uses)
			case s.Name != want && uses > 0:
				t.Errorf("step %q uses %s: only %q needs it", s.Name, secret, want)
			}
		}
	}
}

// The action's outputs are those that the coordinator's step sets, and all of them.
func TestActionOutputsAreTheCoordinators(t *testing.T) {
	a := readAction(t)
	id := stepThatRuns(t, a, "coordinator").ID
	for _, name := range a.Outputs.names {
		if want := "${{ steps." + id + ".outputs." + name + " }}"; a.Outputs.of[name].Value != want {
			t.Errorf("output %s is %q, want %q", name, a.Outputs.of[name].Value, want)
		}
	}
	if diff := cmp.Diff(outputsOf(t, "cmd/nix-builders"), a.Outputs.names); diff != "" {
		t.Errorf("outputs (-program +action.yml):\n%s", diff)
	}
}

// What this action's users were promised from its first day.
func TestActionKeepsItsFirstInputs(t *testing.T) {
	a := readAction(t)
	type promise struct {
		Required bool
		Default  string
	}
	want := map[string]promise{
		"tailscale_authkey":  {}, // was required: there was no other way to log in
		"tailscale_hostname": {Required: true},
		"tailscale_tags":     {Required: true},
		"role":               {Required: true, Default: "builder"},
		"builders":           {},
		"builder_timeout":    {Default: "300"},
		"extra_nix_config":   {},
	}
	got := map[string]promise{}
	for name, in := range a.Inputs.of {
		if _, old := want[name]; !old {
			if in.Required {
				t.Errorf("input %s is new and required: workflows that know nothing of it would break", name)
			}
			continue
		}
		p := promise{Required: in.Required}
		if in.Default != nil {
			p.Default = *in.Default
		}
		got[name] = p
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestActionSaysWhatItsInputsAre(t *testing.T) {
	a := readAction(t)
	said := map[string]string{"the action": a.Description}
	for name, in := range a.Inputs.of {
		said["input "+name] = in.Description
	}
	for name, out := range a.Outputs.of {
		said["output "+name] = out.Description
	}
	for _, what := range slices.Sorted(maps.Keys(said)) {
		if text := said[what]; len(strings.Fields(text)) < 3 || !strings.HasSuffix(text, ".") {
			t.Errorf("%s is described as %q: want a sentence", what, text)
		}
	}
}

// The runner does not take "uses: $/" for the action at the root: setup leads there.
func TestSetupIsTheAction(t *testing.T) {
	here, err := os.Stat("action.yml")
	if err != nil {
		t.Fatal(err)
	}
	there, err := os.Stat("setup/action.yml")
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(here, there) {
		t.Error("setup/action.yml is not action.yml itself")
	}
}

// The plan asks Nix as the build will: with the action's inputs, where it has them.
func TestPlanHasTheActionsDefaults(t *testing.T) {
	a := readAction(t)
	var plan action
	readYAML(t, "plan/action.yml", &plan)
	shared := 0
	for _, name := range plan.Inputs.names {
		in := plan.Inputs.of[name]
		if !strings.HasSuffix(in.Description, ".") {
			t.Errorf("input %s is described as %q: want a sentence", name, in.Description)
		}
		own, ok := a.Inputs.of[name]
		if !ok || name == "builders" { // counts there, names here
			continue
		}
		shared++
		if in.Default == nil || own.Default == nil || *in.Default != *own.Default {
			t.Errorf("input %s does not have the action's default", name)
		}
	}
	if shared == 0 {
		t.Error("plan and action have no input in common")
	}
}

// The workflow that people call hands the action what it has of the action's inputs, with the
// same defaults.
func TestCalledWorkflowHasTheActionsDefaults(t *testing.T) {
	a := readAction(t)
	var w struct {
		On struct {
			Call struct {
				Inputs ordered[struct {
					Description string
					Default     *string
				}]
				Secrets ordered[struct{ Description string }]
			} `yaml:"workflow_call"`
		}
		Jobs map[string]struct{ Steps []step }
	}
	readYAML(t, ".github/workflows/distributed-build.yml", &w)
	set := map[string]step{}
	for _, job := range w.Jobs {
		for _, s := range job.Steps {
			if s.Uses == "$/setup" {
				set[s.With["role"]] = s
			}
		}
	}
	if len(set) != 2 {
		t.Fatalf("%d jobs use the action, want a builder's and the coordinator's", len(set))
	}
	for _, name := range w.On.Call.Inputs.names {
		in := w.On.Call.Inputs.of[name]
		if !strings.HasSuffix(in.Description, ".") {
			t.Errorf("input %s is described as %q: want a sentence", name, in.Description)
		}
		own, ok := a.Inputs.of[name]
		if !ok || name == "builders" { // counts there, names here
			continue
		}
		if in.Default == nil || own.Default == nil || *in.Default != *own.Default {
			t.Errorf("input %s does not have the action's default", name)
		}
		forCoordinator := strings.HasPrefix(own.Description, "Coordinator:")
		for role, s := range set {
			if forCoordinator && role == "builder" {
				continue
			}
			if got, want := s.With[name], "${{ inputs."+name+" }}"; got != want {
				t.Errorf("the %s's job gives %s as %q, want %q", role, name, got, want)
			}
		}
	}
	for _, s := range set {
		for name := range s.With {
			if _, ok := a.Inputs.of[name]; !ok {
				t.Errorf("the workflow gives the action the input %s, which it has not", name)
			}
		}
	}
}
