package actions

import (
	"crypto/rand"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Files are the paths of the files in which a step leaves something for the runner, as
// its environment names them. An empty path is a file that nobody reads: what is
// written to it goes nowhere, and that is no error.
type Files struct {
	Output  string // GITHUB_OUTPUT
	Env     string // GITHUB_ENV
	Path    string // GITHUB_PATH
	State   string // GITHUB_STATE
	Summary string // GITHUB_STEP_SUMMARY
}

// A Pair is a name and its value.
type Pair struct{ Name, Value string }

// SetOutputs sets outputs of the step.
func (f Files) SetOutputs(pairs ...Pair) error { return setPairs("outputs", f.Output, pairs) }

// SetEnv sets variables for the steps that follow.
func (f Files) SetEnv(pairs ...Pair) error { return setPairs("variables", f.Env, pairs) }

// SetState sets what the step's own post step gets.
func (f Files) SetState(pairs ...Pair) error { return setPairs("state", f.State, pairs) }

// AddPath puts a directory on the PATH of the steps that follow.
func (f Files) AddPath(dir string) error {
	if dir == "" || strings.ContainsAny(dir, "\r\n") {
		return fmt.Errorf("add %q to PATH: a directory has one line", dir)
	}
	return add("PATH", f.Path, dir+"\n")
}

// AddSummary adds Markdown to what the run's page shows of the step.
func (f Files) AddSummary(markdown string) error {
	if !strings.HasSuffix(markdown, "\n") {
		markdown += "\n"
	}
	return add("summary", f.Summary, markdown)
}

// setPairs writes all pairs at once, so that a reader sees all of them or none.
func setPairs(what, path string, pairs []Pair) error {
	var b strings.Builder
	for _, p := range pairs {
		text, err := assignment(p)
		if err != nil {
			return fmt.Errorf("set %s of the step: %w", what, err)
		}
		b.WriteString(text)
	}
	return add(what, path, b.String())
}

// assignment is a pair as the runner reads it. A value with line ends stands between
// lines that it can't hold.
func assignment(p Pair) (string, error) {
	if !isName(p.Name) {
		return "", fmt.Errorf("%q is no name: want letters, digits, _ and -", p.Name)
	}
	if !strings.ContainsAny(p.Value, "\r\n") {
		return p.Name + "=" + p.Value + "\n", nil
	}
	end := "end_" + rand.Text()
	// A value that was made before end was drawn holds it by chance alone.
	if slices.Contains(strings.FieldsFunc(p.Value, func(r rune) bool { return r == '\r' || r == '\n' }), end) {
		return "", fmt.Errorf("the value of %s holds its own end", p.Name)
	}
	return p.Name + "<<" + end + "\n" + p.Value + "\n" + end + "\n", nil
}

func isName(s string) bool {
	for _, r := range s {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '_', r == '-':
		default:
			return false
		}
	}
	return s != ""
}

// add appends to a file in one write. The runner has made it, and it is not made here:
// one that is missing is not read by anyone either.
func add(what, path, text string) error {
	if path == "" || text == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fmt.Errorf("write the step's %s: %w", what, err)
	}
	_, err = f.WriteString(text)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("write the step's %s: %w", what, err)
	}
	return nil
}
