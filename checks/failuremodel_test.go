package checks_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each fault of the failure model names a test, and that test is there.
func TestFailureModelNamesTests(t *testing.T) {
	text, err := os.ReadFile("docs/failure-model.md")
	if err != nil {
		t.Fatal(err)
	}
	sources := testSources(t)
	named := regexp.MustCompile("`(Test[A-Za-z]+)(/[a-z0-9-]+)?`")
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") || strings.Contains(cells[len(cells)-1], "shown by") {
			continue
		}
		found := named.FindAllStringSubmatch(cells[len(cells)-1], -1)
		if len(found) == 0 {
			t.Errorf("no test shows: %s", cells[0])
		}
		for _, m := range found {
			if !strings.Contains(sources, "func "+m[1]+"(t *testing.T)") {
				t.Errorf("there is no %s", m[1])
			}
			if story := strings.TrimPrefix(m[2], "/"); story != "" && !isStory(sources, story) {
				t.Errorf("%s has no story %s", m[1], story)
			}
		}
	}
}

// isStory tells whether a name is in the sources, whole or made of the names of a way and of
// a moment.
func isStory(sources, name string) bool {
	if strings.Contains(sources, `"`+name+`"`) {
		return true
	}
	way, moment, ok := strings.Cut(name, "-")
	return ok && strings.Contains(sources, `{name: "`+way+`", `) && strings.Contains(sources, `{"`+moment+`", `)
}

// testSources are all tests of the repository.
func testSources(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		all.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}
