package actions_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/actions"
)

func TestFiles(t *testing.T) {
	files := tempFiles(t)
	hostile := "b1\n::set-env name=PATH::/tmp\nPATH=/tmp\r\nx<<EOF\nEOF\n"
	must(t, files.SetOutputs(actions.Pair{Name: "api", Value: "http://100.64.0.1:8378/v1"}, actions.Pair{Name: "hostile", Value: hostile}))
	must(t, files.SetOutputs(actions.Pair{Name: "empty"}, actions.Pair{Name: "equals", Value: "a=b<<c"}))
	must(t, files.SetEnv(actions.Pair{Name: "NIX_BUILDERS_API", Value: "http://[::1]:8378/v1"}))
	must(t, files.SetState(actions.Pair{Name: "cr", Value: "a\rb"}))
	must(t, files.AddPath("/opt/bin"))
	must(t, files.AddSummary("# One"))
	must(t, files.AddSummary("# Two\n"))

	for _, c := range []struct {
		path string
		want map[string]string
	}{
		{files.Output, map[string]string{"api": "http://100.64.0.1:8378/v1", "hostile": hostile, "empty": "", "equals": "a=b<<c"}},
		{files.Env, map[string]string{"NIX_BUILDERS_API": "http://[::1]:8378/v1"}},
		{files.State, map[string]string{"cr": "a\rb"}},
	} {
		if diff := cmp.Diff(c.want, parse(t, read(t, c.path))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", filepath.Base(c.path), diff)
		}
	}
	if got := read(t, files.Path); got != "/opt/bin\n" {
		t.Errorf("path: %q", got)
	}
	if got := read(t, files.Summary); got != "# One\n# Two\n" {
		t.Errorf("summary: %q", got)
	}
}

func TestFilesRefuse(t *testing.T) {
	files := tempFiles(t)
	for _, name := range []string{"", "a=b", "a\nb", "a<<b", "a b", "é"} {
		if err := files.SetOutputs(actions.Pair{Name: "fine"}, actions.Pair{Name: name}); err == nil {
			t.Errorf("took the name %q", name)
		}
	}
	for _, dir := range []string{"", "/a\n/b", "/a\r/b"} {
		if err := files.AddPath(dir); err == nil {
			t.Errorf("took the directory %q", dir)
		}
	}
	if got := read(t, files.Output) + read(t, files.Path); got != "" {
		t.Errorf("wrote %q all the same", got)
	}
}

func TestFilesThatNobodyReads(t *testing.T) {
	if err := (actions.Files{}).SetOutputs(actions.Pair{Name: "a"}); err != nil {
		t.Errorf("no file: %v", err)
	}
	gone := filepath.Join(t.TempDir(), "gone")
	if err := (actions.Files{Summary: gone}).AddSummary("x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is gone: %v", err)
	}
}

func FuzzOutputs(f *testing.F) {
	f.Add("a\nb=c", "x<<y")
	f.Add("\r", "\n\n")
	f.Fuzz(func(t *testing.T, a, b string) {
		files := tempFiles(t)
		must(t, files.SetOutputs(actions.Pair{Name: "a", Value: a}, actions.Pair{Name: "b", Value: b}))
		if diff := cmp.Diff(map[string]string{"a": a, "b": b}, parse(t, read(t, files.Output))); diff != "" {
			t.Errorf("outputs (-want +got):\n%s", diff)
		}
	})
}

func tempFiles(t *testing.T) actions.Files {
	t.Helper()
	dir := t.TempDir()
	file := func(name string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, nil, 0o600))
		return path
	}
	return actions.Files{
		Output: file("output"), Env: file("env"), Path: file("path"), State: file("state"), Summary: file("summary"),
	}
}

// parse reads a file of assignments by the runner's rules.
func parse(t *testing.T, text string) map[string]string {
	t.Helper()
	pairs := map[string]string{}
	for text != "" {
		line, rest, _ := strings.Cut(text, "\n")
		text = rest
		if line == "" {
			continue
		}
		equals, heredoc := strings.Index(line, "="), strings.Index(line, "<<")
		if equals >= 0 && (heredoc < 0 || equals < heredoc) {
			pairs[line[:equals]] = line[equals+1:]
			continue
		}
		if heredoc < 0 {
			t.Fatalf("the runner can't read the line %q", line)
		}
		value, after, ok := strings.Cut("\n"+text, "\n"+line[heredoc+2:]+"\n")
		if !ok {
			t.Fatalf("the value of %q has no end", line[:heredoc])
		}
		pairs[line[:heredoc]] = strings.TrimPrefix(value, "\n")
		text = after
	}
	return pairs
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return string(b)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
