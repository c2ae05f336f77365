package checks_test

import (
	"bytes"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// What people write in their workflows to use ours.
const repository = "Misaka13514/setup-distributed-nix-builds"

// files of the repository that GitHub reads, without what is a link to another of them.
func actionFiles(t *testing.T) []string {
	return glob(t, "action.yml", "plan/action.yml", "post/action.yml")
}
func workflowFiles(t *testing.T) []string { return glob(t, ".github/workflows/*.yml") }
func exampleFiles(t *testing.T) []string  { return glob(t, "examples/*.yml") }

func glob(t *testing.T, patterns ...string) (files []string) {
	t.Helper()
	for _, p := range patterns {
		found, err := filepath.Glob(p)
		if err != nil || len(found) == 0 {
			t.Fatalf("no files are called %s: %v", p, err)
		}
		files = append(files, found...)
	}
	return files
}

// No file that GitHub would read is left out of the tests below.
func TestActionFilesAreAll(t *testing.T) {
	known := slices.Concat(actionFiles(t), workflowFiles(t), exampleFiles(t))
	for _, pattern := range []string{"action.y*ml", "*/action.y*ml", "*/*/action.y*ml", ".github/workflows/*.y*ml", "examples/*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			if f != "setup/action.yml" && !strings.HasPrefix(f, "e2e/") && !slices.Contains(known, f) {
				t.Errorf("%s is checked by no test", f)
			}
		}
	}
}

// Whoever pins us by commit has pinned all that we run: third parties' actions stand with
// the full SHA and, for people and Dependabot, its version. One action has one version.
func TestThirdPartyActionsArePinned(t *testing.T) {
	uses := regexp.MustCompile(`(?m)^\s*(?:- )?uses:[ \t]*(\S+)(.*)$`)
	pinned := regexp.MustCompile(`^[\w.-]+/[\w./-]+@[0-9a-f]{40}$`)
	versions := map[string]string{} // action -> reference and version
	for _, file := range slices.Concat(actionFiles(t), workflowFiles(t), exampleFiles(t)) {
		text := string(read(t, file))
		if n, all := len(uses.FindAllString(text, -1)), strings.Count(text, "uses:"); n != all {
			t.Errorf("%s: %d of %d times is uses: written in a way that this test does not read", file, all-n, all)
		}
		for _, m := range uses.FindAllStringSubmatch(text, -1) {
			ref, comment := m[1], strings.TrimSpace(m[2])
			name, _, _ := strings.Cut(ref, "@")
			switch {
			// The file's own repository at its own commit. The runner takes no bare $/.
			case strings.HasPrefix(ref, "$/") && !strings.HasPrefix(file, "examples/"):
				if _, err := os.Stat(filepath.Join(strings.TrimPrefix(ref, "$/"), "action.yml")); err != nil || ref == "$/" {
					t.Errorf("%s: %s: there is no such action here", file, ref)
				}
				continue
			case strings.HasPrefix(file, "examples/") && (name == repository || strings.HasPrefix(name, repository+"/")):
				if !strings.HasSuffix(ref, "@main") {
					t.Errorf("%s: %s: examples name our main branch", file, ref)
				}
				continue
			// Nobody else runs the workflow that tests this very checkout.
			case file == ".github/workflows/self-test.yml" && strings.HasPrefix(ref, "./"):
				continue
			}
			if !pinned.MatchString(ref) || !regexp.MustCompile(`^# v\d+(\.\d+)*$`).MatchString(comment) {
				t.Errorf("%s: %s %s: want the full SHA of a commit and its version behind it, # v1.2.3", file, ref, comment)
			}
			if other, ok := versions[name]; ok && other != ref+" "+comment {
				t.Errorf("%s: %s %s: elsewhere it is %s", file, ref, comment, other)
			}
			versions[name] = ref + " " + comment
		}
	}
	if len(versions) < 5 {
		t.Errorf("only %d actions of third parties are used", len(versions))
	}
}

// Expressions are put into a script before bash reads it, so that an input, a branch's
// name or a title would be code. Scripts get values through their environment.
func TestScriptsHoldNoExpressions(t *testing.T) {
	scripts := 0
	for _, file := range slices.Concat(actionFiles(t), workflowFiles(t), exampleFiles(t)) {
		var root yaml.Node
		readYAML(t, file, &root)
		walk(&root, func(key string, n *yaml.Node) {
			if key != "run" && key != "script" || n.Kind != yaml.ScalarNode {
				return
			}
			scripts++
			if strings.Contains(n.Value, "${{") {
				t.Errorf("%s:%d: a script with an expression in it", file, n.Line)
			}
		})
	}
	if scripts < 10 {
		t.Errorf("found %d scripts only", scripts)
	}
}

// walk calls visit for each member of each mapping below n.
func walk(n *yaml.Node, visit func(key string, value *yaml.Node)) {
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 1 {
			visit(n.Content[i-1].Value, c)
		}
		walk(c, visit)
	}
}

// A workflow may read the repository and no more; a job that needs more says so itself.
func TestWorkflowsHaveLeastPermissions(t *testing.T) {
	type job struct{ Permissions permissions }
	for _, file := range slices.Concat(workflowFiles(t), exampleFiles(t)) {
		var w struct {
			On          yaml.Node
			Permissions permissions
			Jobs        map[string]job
		}
		readYAML(t, file, &w)
		// A called workflow can't have more than its caller, and is refused if it asks for
		// more: who logs in by identity token grants that, who does not need not.
		if called := w.On.Kind == yaml.MappingNode && len(w.On.Content) == 2 && w.On.Content[0].Value == "workflow_call"; called {
			for name, j := range w.Jobs {
				if !j.Permissions.within(permissions{"contents": "read"}) {
					t.Errorf("%s: job %s asks its caller for %v", file, name, j.Permissions)
				}
			}
			if w.Permissions != nil {
				t.Errorf("%s: it takes from its caller's permissions what the caller may need", file)
			}
			continue
		}
		if w.Permissions == nil || !w.Permissions.within(permissions{"contents": "read"}) {
			t.Errorf("%s: its permissions are %v, want contents: read at most, and what a job needs beyond that in the job", file, w.Permissions)
		}
	}
}

type permissions map[string]string

func (p permissions) within(most permissions) bool {
	for scope, access := range p {
		if access != "none" && access != most[scope] {
			return false
		}
	}
	return true
}

// The first thing that people see keeps its promise.
func TestEightLines(t *testing.T) {
	if n := bytes.Count(read(t, "examples/eight-lines.yml"), []byte("\n")); n != 8 {
		t.Errorf("it has %d lines", n)
	}
}

// Dependabot looks into named directories only: each that holds a pin has to be named.
func TestDependabotSeesEveryPin(t *testing.T) {
	var config struct {
		Updates []struct {
			Ecosystem   string `yaml:"package-ecosystem"`
			Directories []string
		}
	}
	readYAML(t, ".github/dependabot.yml", &config)
	directories := map[string][]string{}
	for _, u := range config.Updates {
		directories[u.Ecosystem] = u.Directories
	}
	for _, file := range slices.Concat(actionFiles(t), workflowFiles(t), exampleFiles(t)) {
		// For it, the root holds the workflows and the root's own action.
		dir := "/" + strings.TrimPrefix(path.Dir(filepath.ToSlash(file)), ".github/workflows")
		if dir = path.Clean(dir); bytes.Contains(read(t, file), []byte("# v")) && !slices.Contains(directories["github-actions"], dir) {
			t.Errorf("%s: dependabot.yml does not name %s", file, dir)
		}
	}
	for _, file := range glob(t, "go.mod", "*/go.mod") {
		if dir := path.Clean("/" + path.Dir(filepath.ToSlash(file))); !slices.Contains(directories["gomod"], dir) {
			t.Errorf("%s: dependabot.yml does not name %s", file, dir)
		}
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
