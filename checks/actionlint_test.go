package checks_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// actionlint reads every workflow and example, and the actions' own steps as if they were
// a workflow's. It can't look into other repositories, and doesn't know references to the
// workflow's own: both are made references to a checkout, so that it also holds inputs,
// secrets and outputs against what they go to.
func TestActionlint(t *testing.T) {
	project := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(project, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(rendered.Replace(text)), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write(".git/HEAD", "") // what makes it a repository
	for _, file := range append(actionFiles(t), "setup/action.yml") {
		write(file, string(read(t, file)))
	}
	for _, script := range []string{"post/main.js", "post/post.js"} {
		write(script, string(read(t, script)))
	}
	var workflows []string
	for _, file := range workflowFiles(t) {
		workflows = append(workflows, write(file, string(read(t, file))))
	}
	for _, file := range exampleFiles(t) {
		workflows = append(workflows, write(".github/workflows/example-"+filepath.Base(file), string(read(t, file))))
	}
	for _, file := range []string{"action.yml", "plan/action.yml"} {
		name := ".github/workflows/steps-of-" + strings.ReplaceAll(file, "/", "-")
		workflows = append(workflows, write(name, asWorkflow(t, file)))
	}

	if _, err := exec.LookPath("shellcheck"); err != nil {
		t.Log("shellcheck is not installed, so scripts in workflows are not checked; make lint installs it")
	}
	lint := exec.CommandContext(t.Context(), "go", append([]string{"tool", "-modfile=tools/go.mod", "actionlint", "-no-color"}, workflows...)...)
	if out, err := lint.CombinedOutput(); err != nil {
		t.Errorf("actionlint: %v; files are those of a copy:\n%s", err, out)
	}
}

// rendered refers to a checkout of this repository where a file refers to it from elsewhere.
var rendered = strings.NewReplacer(
	"uses: $/", "uses: ./",
	"uses: "+repository+"@main", "uses: ./",
	"uses: "+repository+"/plan@main", "uses: ./plan",
	"uses: "+repository+"/.github/workflows/distributed-build.yml@main", "uses: ./.github/workflows/distributed-build.yml",
)

// asWorkflow is a workflow whose inputs are the action's inputs, with one job whose steps
// are the action's steps and whose outputs are its outputs.
func asWorkflow(t *testing.T, file string) string {
	t.Helper()
	var a struct {
		Inputs  map[string]struct{ Default *string }
		Outputs map[string]struct{ Value string }
		Runs    struct{ Steps yaml.Node }
	}
	readYAML(t, file, &a)
	inputs, outputs := map[string]any{}, map[string]any{}
	for name := range a.Inputs {
		inputs[name] = map[string]any{"type": "string"}
	}
	for name, out := range a.Outputs {
		outputs[name] = out.Value
	}
	text, err := yaml.Marshal(map[string]any{
		"on":          map[string]any{"workflow_call": map[string]any{"inputs": inputs}},
		"permissions": map[string]any{},
		"jobs": map[string]any{"action": map[string]any{
			"runs-on": "ubuntu-24.04", "outputs": outputs, "steps": &a.Runs.Steps,
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
