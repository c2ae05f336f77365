package checks_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/Misaka13514/setup-distributed-nix-builds"

// An arrow is a rule about who may import what, and the reason for it. Paths are import
// paths, those of this module without its name; a trailing /... means all below.
type arrow struct {
	from   string
	only   []string // if set: of packages that are not Go's own, only these
	never  []string // never these
	reason string
}

var arrows = []arrow{
	{
		from: "coordinator", only: []string{"github.com/google/uuid"},
		reason: "the domain is read, tested and changed without HTTP, Tailscale or Nix in mind",
	},
	{
		from: "httpapi/...", never: []string{"tailscale.com/...", "builder/...", "internal/nix", "internal/tailnet", "internal/dispatch"},
		reason: "identity is a function value: the API is tested with any caller, and knows no Nix",
	},
	{
		from: "builder/...", never: []string{"coordinator/...", "httpapi/...", "tailscale.com/...", "internal/nix", "internal/tailnet", "internal/direct"},
		reason: "a builder knows its coordinator only by the contract",
	},
	{
		from: "internal/...", never: []string{"cmd/...", "httpapi/...", "builder/..."},
		reason: "what is below does not know what is above",
	},
	{
		from: "internal/nix", never: []string{"coordinator/...", "tailscale.com/..."},
		reason: "Nix's files and facts are about Nix; internal/dispatch connects them with the cluster",
	},
	{
		from: "internal/scheduler", only: []string{},
		reason: "who gets which slot is decided, and tested, without cluster, lease or tailnet in mind",
	},
	{
		from: "internal/hook", only: []string{"internal/scheduler", "internal/proc", "internal/machinesfile", "github.com/nix-community/go-nix/...", "github.com/cenkalti/backoff/v5", "golang.org/x/sys/unix"},
		reason: "Nix waits for each hook: it starts quickly, and knows a scheduler, Nix' own hook and its machines file, nothing else",
	},
	{
		from: "internal/called", only: []string{"internal/hook", "internal/direct", "internal/silence"},
		reason: "its programs are started for each build, and each package that is linked with them makes that longer",
	},
	{
		from: "cmd/nix-builders-hook", only: []string{"internal/called", "internal/hook"},
		reason: "it is there because it loads nothing else",
	},
	{
		from: "internal/silence", only: []string{"golang.org/x/sys/unix"},
		reason: "the programs that are started for each build have it too",
	},
	{
		from: "internal/machinesfile", only: []string{},
		reason: "the build hook has it, and is started for each build",
	},
	{
		from: "internal/nixstore", only: []string{"github.com/nix-community/go-nix/..."},
		reason: "it speaks one protocol, whoever asks and for whatever",
	},
	{
		from: "internal/apiclient", never: []string{"coordinator/...", "tailscale.com/..."},
		reason: "the client is the contract's, not the server's",
	},
	{
		from: "internal/direct", never: []string{"coordinator/...", "tailscale.com/...", "internal/tailnet", "internal/nix"},
		reason: "identity and connections are function values: it serves any program to any network's callers",
	},
	{
		from: "internal/feed", only: []string{"github.com/nix-community/go-nix/...", "github.com/go-chi/chi/v5", "github.com/cenkalti/backoff/v5", "github.com/google/renameio/v2"},
		reason: "who has which path is told by function values: it is tested without cluster, tailnet or Nix",
	},
	{
		from: "internal/actions", only: []string{},
		reason: "what GitHub's runner reads is its own matter, whatever is told",
	},
	{
		from: "internal/summary", only: []string{"internal/apiclient"},
		reason: "a summary is told of what the API says, and tells only people",
	},
	{
		from: "cmd/...", never: []string{"internal/release"},
		reason: "the program does not hold what makes its releases",
	},
	{
		from: "./...", never: []string{"e2e/...", "docs", "internal/golden", "testing"},
		reason: "the product holds neither its own tests nor its documents",
	},
}

// goPackage is what go list tells of a package.
type goPackage struct {
	ImportPath string
	Name       string
	Dir        string
	GoFiles    []string
	Imports    []string
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Name,Dir,GoFiles,Imports", "./...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 10 {
		t.Fatalf("go list names %d packages only", len(all))
	}
	return all
}

func TestArrows(t *testing.T) {
	all := packages(t)
	for _, a := range arrows {
		matched := false
		for _, p := range all {
			from := short(p.ImportPath)
			if strings.HasPrefix(from, "e2e") || !matches(a.from, from) {
				continue
			}
			matched = true
			for _, path := range p.Imports {
				to := short(path)
				if a.only != nil && !standard(path) && !matchesAny(a.only, to) || matchesAny(a.never, to) {
					t.Errorf("%s imports %s: %s", from, to, a.reason)
				}
			}
		}
		if !matched {
			t.Errorf("the arrow from %s is about no package", a.from)
		}
	}
}

// Only the program itself reads its environment; everything else is told.
func TestEnvironmentIsReadInCmdOnly(t *testing.T) {
	for _, p := range packages(t) {
		if from := short(p.ImportPath); strings.HasPrefix(from, "cmd/") || strings.HasPrefix(from, "e2e") {
			continue
		}
		for name, file := range parse(t, p) {
			ast.Inspect(file, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "os" && slices.Contains([]string{"Getenv", "LookupEnv", "Environ"}, sel.Sel.Name) {
					t.Errorf("%s calls os.%s: settings are read in cmd and handed down", name, sel.Sel.Name)
				}
				return true
			})
		}
	}
}

// No package has state of its own: what lives is made, owned and ended by somebody.
func TestNoInit(t *testing.T) {
	for _, p := range packages(t) {
		for name, file := range parse(t, p) {
			for _, d := range file.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
					t.Errorf("%s has an init function", name)
				}
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range packages(t) {
		comments := 0
		for _, file := range parse(t, p) {
			if file.Doc != nil && !ast.IsGenerated(file) {
				comments++
				if len(strings.Fields(file.Doc.Text())) < 5 {
					t.Errorf("%s: its package comment says nothing", short(p.ImportPath))
				}
			}
		}
		if comments != 1 && len(p.GoFiles) > 0 {
			t.Errorf("%s has %d package comments, want 1", short(p.ImportPath), comments)
		}
	}
}

func parse(t *testing.T, p goPackage) map[string]*ast.File {
	t.Helper()
	files := make(map[string]*ast.File)
	for _, name := range p.GoFiles {
		path := filepath.Join(p.Dir, name)
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files[filepath.Join(short(p.ImportPath), name)] = file
	}
	return files
}

// short drops the module's own name: "builder" for this module's package builder.
func short(path string) string { return strings.TrimPrefix(strings.TrimPrefix(path, module), "/") }

// standard tells Go's own packages: their first element has no dot.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

func matchesAny(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, path) })
}

func matches(pattern, path string) bool {
	if pattern == "./..." {
		return true
	}
	prefix, all := strings.CutSuffix(pattern, "/...")
	return path == prefix || all && strings.HasPrefix(path, prefix+"/")
}
