package checks_test

import (
	"go/ast"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// An action is what the tests need of an action.yml, or of a workflow that is called.
type action struct {
	Name, Description string
	Inputs            ordered[input]
	Outputs           ordered[output]
	Runs              struct{ Steps []step }
}

type input struct {
	Description string
	Required    bool
	Default     *string
}

type output struct{ Description, Value string }

type step struct {
	Name, ID, If, Uses, Run string
	Env, With               map[string]string
}

// ordered is a mapping whose order matters to who reads it.
type ordered[T any] struct {
	names []string
	of    map[string]T
}

func (o *ordered[T]) UnmarshalYAML(n *yaml.Node) error {
	for i := 0; i < len(n.Content); i += 2 {
		o.names = append(o.names, n.Content[i].Value)
	}
	return n.Decode(&o.of)
}

// text of the step that may use inputs: everything but its name.
func (s step) text() string {
	parts := []string{s.If, s.Uses, s.Run}
	for _, m := range []map[string]string{s.Env, s.With} {
		parts = append(parts, slices.Collect(maps.Values(m))...)
	}
	return strings.Join(parts, "\n")
}

func readAction(t *testing.T) (a action) {
	t.Helper()
	readYAML(t, "action.yml", &a)
	if len(a.Inputs.names) < 7 || len(a.Runs.Steps) < 5 {
		t.Fatalf("action.yml has %d inputs and %d steps only", len(a.Inputs.names), len(a.Runs.Steps))
	}
	return a
}

func readYAML(t *testing.T, name string, v any) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// settings are the program's settings and their defaults, as its own help tells them. Where
// the help explains a default in words the program works it out: here it is empty.
func settings(t *testing.T) map[string]string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "nix-builders")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./cmd/nix-builders").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	help := exec.CommandContext(t.Context(), program, "--help")
	help.Env = []string{"PATH=" + os.Getenv("PATH")}
	text, err := help.Output()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^  (NIX_BUILDERS_\w+)\n((?:      .*\n)+)`).FindAllStringSubmatch(string(text), -1) {
		words := strings.Join(strings.Fields(m[2]), " ")
		value := regexp.MustCompile(` Default: (\S+)\.$`).FindStringSubmatch(words)
		all[m[1]] = ""
		if value != nil {
			all[m[1]] = value[1]
		}
	}
	if len(all) < 30 {
		t.Fatalf("the help names %d settings only:\n%s", len(all), text)
	}
	return all
}

// same compares two defaults as the program reads them: seconds are durations.
func same(a, b string) bool {
	if a == b {
		return true
	}
	span := func(s string) (time.Duration, error) {
		if regexp.MustCompile(`^\d+$`).MatchString(s) {
			s += "s"
		}
		return time.ParseDuration(s)
	}
	da, errA := span(a)
	db, errB := span(b)
	return errA == nil && errB == nil && da == db
}

var inputRef = regexp.MustCompile(`\$\{\{ inputs\.(\w+) \}\}`)

func stepThatRuns(t *testing.T, a action, command string) step {
	t.Helper()
	for _, s := range a.Runs.Steps {
		if strings.HasSuffix(s.Run, `"$PROGRAM" `+command) {
			return s
		}
	}
	t.Fatalf("no step runs nix-builders %s", command)
	return step{}
}

// outputsOf are the outputs that a program sets: the names of the pairs in its calls of
// SetOutputs.
func outputsOf(t *testing.T, program string) (names []string) {
	t.Helper()
	for _, p := range packages(t) {
		if short(p.ImportPath) != program {
			continue
		}
		for _, file := range parse(t, p) {
			ast.Inspect(file, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				if f, ok := call.Fun.(*ast.SelectorExpr); !ok || f.Sel.Name != "SetOutputs" {
					return true
				}
				for _, arg := range call.Args {
					names = append(names, pairName(t, arg))
				}
				return false
			})
		}
	}
	return names
}

// pairName is "x" of actions.Pair{Name: "x", Value: ...}.
func pairName(t *testing.T, e ast.Expr) string {
	t.Helper()
	if pair, ok := e.(*ast.CompositeLit); ok {
		for _, member := range pair.Elts {
			kv, ok := member.(*ast.KeyValueExpr)
			if !ok {
				continue
			}
			key, isName := kv.Key.(*ast.Ident)
			value, isText := kv.Value.(*ast.BasicLit)
			if isName && isText && key.Name == "Name" {
				if name, err := strconv.Unquote(value.Value); err == nil {
					return name
				}
			}
		}
	}
	t.Fatal("a call of SetOutputs names an output otherwise than by a string")
	return ""
}
