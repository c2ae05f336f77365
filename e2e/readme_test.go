package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// A block is a ```sh block of a document.
type block struct {
	file, text string
	where      string // its first line, if that is a comment: where to run it
}

var shell = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

func blocks(t *testing.T) []block {
	t.Helper()
	files, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	var all []block
	for _, file := range append([]string{"../README.md"}, files...) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range shell.FindAllStringSubmatch(string(text), -1) {
			b := block{file: filepath.Base(file), text: m[1]}
			if first, _, _ := strings.Cut(b.text, "\n"); strings.HasPrefix(first, "# ") {
				b.where = strings.TrimPrefix(first, "# ")
			}
			all = append(all, b)
		}
	}
	if len(all) < 5 {
		t.Fatalf("%d blocks of commands only", len(all))
	}
	return all
}

// Every command that the documents show does what they say, on the hosts that they name.
func TestDocuments(t *testing.T) {
	t.Parallel() // it mostly waits
	lab := startLab(t, testbed.Config{Builders: 2})
	c := newCluster(t, lab, "4711", 2) // the run of program.md
	var last []block
	for _, b := range blocks(t) {
		if strings.Contains(b.text, "nix-builders leave") {
			last = append(last, b)
			continue
		}
		runBlock(t, c, b)
	}
	c.wantReleased()
	for _, b := range last {
		runBlock(t, c, b)
	}
}

func runBlock(t *testing.T, c *cluster, b block) {
	t.Helper()
	on := func(host, user string, env ...string) {
		t.Helper()
		argv := append(append([]string{"env"}, env...), "sh", "-euc", b.text)
		p, err := c.Start(t.Context(), host, user, argv...)
		if err != nil {
			t.Fatal(err)
		}
		c.wantExit(p, 0)
	}
	switch b.where {
	case "builder":
		for i, host := range c.Builders {
			script := strings.ReplaceAll(b.text, "-24.04-1", fmt.Sprintf("-24.04-%d", i+1))
			p, err := c.Start(t.Context(), host, testbed.Root, "sh", "-euc", script)
			if err != nil {
				t.Fatal(err)
			}
			c.builders[host] = p
		}
	case "coordinator":
		on(c.Coordinator, testbed.Root)
	case "coordinator, as a user":
		if err := c.InstallExpressions(within(t, patience)); err != nil {
			t.Fatal(err)
		}
		on(c.Coordinator, testbed.Runner, "NIX_BUILDERS_API="+c.api())
	case "any job":
		on(c.Coordinator, testbed.Runner, "GITHUB_OUTPUT=/tmp/output")
	case "":
		for line := range strings.Lines(strings.ReplaceAll(b.text, "\\\n", "")) {
			checkLine(t, b, strings.Fields(line))
		}
	default:
		t.Errorf("%s: nobody knows where to run a block for %q", b.file, b.where)
	}
}

// checkLine holds a command of the source tree to being one: these are what CI itself runs,
// and take as long.
func checkLine(t *testing.T, b block, words []string) {
	t.Helper()
	switch {
	case len(words) > 1 && words[0] == "make":
		cmd := exec.CommandContext(t.Context(), "make", append([]string{"-n"}, words[1:]...)...)
		cmd.Dir = ".."
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %s: %v\n%s", b.file, strings.Join(words, " "), err, out)
		}
	case b.file == "releasing.md" && len(words) > 0 && slices.Contains([]string{"git", "gh", "grep"}, words[0]):
		// There is no release to do it to, but what it names of this repository is there.
		for _, w := range words {
			if i := strings.Index(w, ".github/"); i >= 0 {
				w = w[i:]
			} else if !strings.HasPrefix(w, "release/") {
				continue
			}
			if _, err := os.Stat(filepath.Join("..", w)); err != nil {
				t.Errorf("%s: %s: %v", b.file, strings.Join(words, " "), err)
			}
		}
	case len(words) > 3 && words[0] == "go" && words[1] == "run" && words[2] == "./e2e/lab":
		tested, err := os.ReadFile("lab/testdata/by-hand.txtar")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(tested), "\nlab "+words[3]+" ") {
			t.Errorf("%s: no test runs lab %s", b.file, words[3])
		}
	case len(words) > 2 && words[0] == "go" && words[1] == "run" && words[2] == "./e2e/bench":
		// make bench runs it; a test has no time for it.
	case strings.Join(words, " ") == "go test ./checks -run README -update":
		// The same test without its last word holds the file that this would write.
		test, err := os.ReadFile("../checks/readme_test.go")
		if err != nil {
			t.Fatal(err)
		}
		contains(t, "readme_test.go", string(test), "func TestREADME", `flag.Bool("update"`)
	case len(words) > 0:
		t.Errorf("%s: nothing runs %q: say in the block's first line where it is to be run", b.file, strings.Join(words, " "))
	}
}
