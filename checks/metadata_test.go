package checks_test

import (
	"bytes"
	"maps"
	"regexp"
	"slices"
	"testing"

	"go.yaml.in/yaml/v3"
)

// metadata is all that GitHub documents of an action.yml for composite and JavaScript
// actions. What it does not name is an error here, as GitHub ignores some of it in silence.
type metadata struct {
	Name, Author, Description string
	Inputs                    map[string]struct {
		Description        string
		Required           bool
		Default            *string
		DeprecationMessage string `yaml:"deprecationMessage"`
	}
	Outputs map[string]struct {
		Description string
		Value       *string
	}
	Runs struct {
		Using           string
		Pre, Main, Post string
		PreIf           string `yaml:"pre-if"`
		PostIf          string `yaml:"post-if"`
		Steps           []metadataStep
	}
	Branding struct{ Icon, Color string }
}

// metadataStep is a step of a composite action, which has less than a job's.
type metadataStep struct {
	Name, ID, If, Run, Shell, Uses string
	WorkingDirectory               string `yaml:"working-directory"`
	ContinueOnError                string `yaml:"continue-on-error"`
	With, Env                      map[string]string
}

func TestActionMetadata(t *testing.T) {
	for _, file := range append(actionFiles(t), "setup/action.yml") {
		t.Run(file, func(t *testing.T) {
			var m metadata
			d := yaml.NewDecoder(bytes.NewReader(read(t, file)))
			d.KnownFields(true)
			if err := d.Decode(&m); err != nil {
				t.Fatal(err)
			}
			if m.Name == "" || m.Description == "" {
				t.Error("an action has a name and a description")
			}
			id := regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)
			for _, name := range slices.Concat(slices.Collect(maps.Keys(m.Inputs)), slices.Collect(maps.Keys(m.Outputs))) {
				if !id.MatchString(name) {
					t.Errorf("%q can't be the name of an input or output", name)
				}
			}
			for name, in := range m.Inputs {
				if in.Description == "" {
					t.Errorf("input %s has no description", name)
				}
			}
			for name, out := range m.Outputs {
				if composite := m.Runs.Using == "composite"; out.Description == "" || composite != (out.Value != nil) {
					t.Errorf("output %s: want a description, and a value in composite actions only", name)
				}
			}
			switch m.Runs.Using {
			case "composite":
				if m.Runs.Main+m.Runs.Post+m.Runs.Pre != "" {
					t.Error("a composite action has steps and nothing else")
				}
				checkSteps(t, m.Runs.Steps)
			case "node24":
				if m.Runs.Main == "" || len(m.Runs.Steps) > 0 {
					t.Error("a JavaScript action has a main and no steps")
				}
			default:
				t.Errorf("using %q", m.Runs.Using)
			}
		})
	}
}

func checkSteps(t *testing.T, steps []metadataStep) {
	t.Helper()
	if len(steps) == 0 {
		t.Error("no steps")
	}
	ids := map[string]bool{}
	for _, s := range steps {
		switch {
		case (s.Run == "") == (s.Uses == ""):
			t.Errorf("step %q: want one of run and uses", s.Name)
		case s.Run != "" && (s.Shell == "" || s.With != nil):
			t.Errorf("step %q: in a composite action run needs a shell, and has no with", s.Name)
		case s.Uses != "" && s.Shell != "":
			t.Errorf("step %q: uses has no shell", s.Name)
		case s.ID != "" && ids[s.ID]:
			t.Errorf("step %q: another step is %s, too", s.Name, s.ID)
		case s.Name == "":
			t.Error("a step without a name shows its script's first line to people")
		}
		ids[s.ID] = true
	}
}
