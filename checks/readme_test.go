package checks_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var updateReadme = flag.Bool("update", false, "write the parts of README.md that are made from other files")

var generated = regexp.MustCompile(`(?ms)^<!-- begin: (\S[^\n]*) -->\n(.*?)^<!-- end -->$`)

// What README.md shows of other files is what stands in them.
func TestREADMEShowsTheFilesThemselves(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	parts := 0
	want := generated.ReplaceAllStringFunc(string(text), func(part string) string {
		m := generated.FindStringSubmatch(part)
		body := m[2]
		if m[1] != "messages" { // written by hand, and held by another test
			parts++
			body = generate(t, m[1])
		}
		return fmt.Sprintf("<!-- begin: %s -->\n%s<!-- end -->", m[1], body)
	})
	if parts != 9 {
		t.Errorf("README.md has %d parts that are made from files, want 9", parts)
	}
	if *updateReadme {
		if err := os.WriteFile("README.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("run go test ./checks -run README -update (-files +README):\n%s", diff)
	}
}

// generate makes the part of that name: a table of "inputs of FILE", or the file itself.
func generate(t *testing.T, part string) string {
	t.Helper()
	what, name, ok := strings.Cut(part, " of ")
	if !ok {
		text, err := os.ReadFile(part)
		if err != nil {
			t.Fatal(err)
		}
		language := strings.TrimPrefix(filepath.Ext(part), ".")
		if language == "hujson" {
			language = "jsonc"
		}
		return "```" + strings.Replace(language, "yml", "yaml", 1) + "\n" + string(text) + "```\n"
	}
	var a struct {
		action `yaml:",inline"`
		On     struct {
			Call struct {
				Inputs  ordered[input]
				Secrets ordered[input]
			} `yaml:"workflow_call"`
		}
	}
	readYAML(t, name, &a)
	if len(a.On.Call.Inputs.names) > 0 {
		a.Inputs = a.On.Call.Inputs
	}
	var b strings.Builder
	switch what {
	case "inputs":
		b.WriteString("| input | default | |\n|---|---|---|\n")
		for _, name := range a.Inputs.names {
			in := a.Inputs.of[name]
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, defaultOf(in), cell(in.Description))
		}
	case "secrets":
		b.WriteString("| secret | |\n|---|---|\n")
		for _, name := range a.On.Call.Secrets.names {
			fmt.Fprintf(&b, "| `%s` | %s |\n", name, cell(a.On.Call.Secrets.of[name].Description))
		}
	case "outputs":
		b.WriteString("| output | |\n|---|---|\n")
		for _, name := range a.Outputs.names {
			fmt.Fprintf(&b, "| `%s` | %s |\n", name, cell(a.Outputs.of[name].Description))
		}
	default:
		t.Fatalf("README.md: nobody knows how to make %q", part)
	}
	return b.String()
}

func defaultOf(in input) string {
	switch {
	case in.Default != nil && *in.Default != "":
		return "`" + *in.Default + "`"
	case in.Required:
		return "required"
	default:
		return ""
	}
}

// cell makes text fit into a table.
func cell(text string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", `\|`)
}

// Each message that README.md explains is one that the programs can print, word for word.
func TestREADMEExplainsRealMessages(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	printed := messages(t)
	rows := 0
	for _, m := range generated.FindAllStringSubmatch(string(text), -1) {
		if m[1] != "messages" {
			continue
		}
		for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]+`) \\|").FindAllStringSubmatch(m[2], -1) {
			rows++
			for piece := range strings.FieldsFuncSeq(row[1], func(r rune) bool { return r == '`' }) {
				for text := range strings.SplitSeq(piece, "...") {
					if text = strings.Trim(text, " ,"); text != "" && !strings.Contains(printed, text) {
						t.Errorf("%s: no program prints %q", row[1], text)
					}
				}
			}
		}
	}
	if rows < 25 {
		t.Errorf("README.md explains %d messages only", rows)
	}
}

// messages is all text that the product's programs hold: the strings of its Go files, and the
// scripts whole.
func messages(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, p := range packages(t) {
		if strings.HasPrefix(short(p.ImportPath), "e2e") {
			continue
		}
		for _, file := range parse(t, p) {
			ast.Inspect(file, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					if s, err := strconv.Unquote(lit.Value); err == nil {
						b.WriteString(strings.Join(strings.Fields(s), " ") + "\n")
					}
				}
				return true
			})
		}
	}
	for _, name := range []string{"install.sh", "post/main.js", "post/post.js"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
		}
		b.Write(text)
	}
	return b.String()
}

// A whole workflow is eight lines, and stands first.
func TestREADMEBeginsWithEightLines(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	first := generated.FindStringSubmatch(string(text))
	if first == nil || first[1] != "examples/eight-lines.yml" {
		t.Fatalf("README.md begins with %q", first)
	}
	if n := strings.Count(first[2], "\n") - 2; n != 8 { // without the fences
		t.Errorf("the workflow has %d lines", n)
	}
}

// Whether programs are downloaded or built is told as it is.
func TestREADMEKnowsOfReleases(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile("release/checksums.txt")
	if err != nil {
		t.Fatal(err)
	}
	none := regexp.MustCompile(`(?m)^version +none$`).Match(sums)
	if says := strings.Contains(string(text), "No release has been made yet."); says != none {
		t.Errorf("README.md says that there is no release: %t; release/checksums.txt: %t", says, none)
	}
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
	code    = regexp.MustCompile("(?ms)^```.*?^```$")
)

// Links from one document to another lead somewhere.
func TestDocumentsLinkToWhatIsThere(t *testing.T) {
	files, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, "README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(string(text), ""), -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, ":") {
				continue // the web's
			}
			name := file
			if target != "" {
				name = filepath.Join(filepath.Dir(file), target)
			}
			there, err := os.ReadFile(name)
			if err != nil {
				t.Errorf("%s links to %s: %v", file, m[1], err)
				continue
			}
			if anchor != "" && !hasAnchor(string(there), anchor) {
				t.Errorf("%s links to %s: no heading there is called so", file, m[1])
			}
		}
	}
}

// hasAnchor reports whether a heading gets this anchor from GitHub.
func hasAnchor(document, anchor string) bool {
	for _, m := range heading.FindAllStringSubmatch(code.ReplaceAllString(document, ""), -1) {
		words := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		if strings.ReplaceAll(words, " ", "-") == anchor {
			return true
		}
	}
	return false
}
