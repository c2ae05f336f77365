package summary_test

import (
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/summary"
)

var (
	reference = regexp.MustCompile(`&#[0-9]+;`)
	date      = `\d{4,}-\d\d-\d\d \d\d:\d\d:\d\d`
	ganttLine = regexp.MustCompile(`^(gantt|    (dateFormat YYYY-MM-DD HH:mm:ss|axisFormat %H:%M:%S|section [\w .-]+|· stop :milestone, ` + date + `, 0s|· [\w .-]* :(active|done|crit), ` + date + `, ` + date + `))$`)
)

// wellFormed checks what holds for every summary.
func wellFormed(t *testing.T, r summary.Run) {
	t.Helper()
	told := r.Told()
	told.States = nil // everything is new
	all := map[string]string{"Markdown": r.Markdown(), "later": r.Later(told), "text": r.Text(), "later text": r.LaterText(told)}
	for what, text := range all {
		if len(text) > summary.MaxSize {
			t.Errorf("%s has %d bytes", what, len(text))
		}
		if !utf8.ValidString(text) {
			t.Errorf("%s is not UTF-8", what)
		}
		for _, r := range text {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Errorf("%s holds %U", what, r)
				break
			}
		}
	}
	for _, what := range []string{"Markdown", "later"} {
		checkMarkdown(t, all[what])
	}
}

func checkMarkdown(t *testing.T, text string) {
	t.Helper()
	if fences := strings.Count(text, "`"); fences != 0 && fences != 6 {
		t.Errorf("%d backticks, want a single block", fences)
	}
	pipes, diagram := 0, false
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		bare := reference.ReplaceAllString(line, "")
		switch {
		case strings.HasPrefix(line, "```"):
			diagram = !diagram
			continue
		case diagram:
			if !ganttLine.MatchString(line) {
				t.Errorf("a line of the diagram: %q", line)
			}
			continue
		case strings.HasPrefix(line, "|"):
			if n := strings.Count(bare, "|"); pipes == 0 {
				pipes = n
			} else if n != pipes {
				t.Errorf("%d columns, not %d: %q", n-1, pipes-1, line)
			}
			continue
		case strings.Contains(bare, "|"):
			t.Errorf("a table in the text: %q", line)
		}
		bare = strings.TrimPrefix(strings.TrimPrefix(bare, "### "), "- ")
		if strings.HasPrefix(line, "**") {
			bare = strings.Trim(bare, "*")
		}
		if strings.ContainsAny(bare, "<>[]`*#&~$!@\\") || regexp.MustCompile(`www\.\S`).MatchString(bare) || strings.Contains(bare, "://") {
			t.Errorf("means something in Markdown: %q", line)
		}
	}
	if diagram {
		t.Error("the diagram has no end")
	}
}

func FuzzSummary(f *testing.F) {
	f.Add("name", "reason", "x86_64-linux", uint16(3), uint8(1), int64(60), int64(10))
	f.Add("a|b`<i>", "\u202e\n```\n# x", "section click", uint16(300), uint8(5), int64(-5), int64(0))
	f.Add("\xff\xfe", "😀😀😀", "", uint16(1), uint8(99), int64(1<<40), int64(1<<60))
	f.Add("0", ".", "!@C", uint16(1), uint8(26), int64(59), int64(10)) // a lone builder with a fate that there is not
	f.Fuzz(func(t *testing.T, name, reason, system string, n uint16, fate uint8, joined, busy int64) {
		r := summary.Run{
			Cluster: name + reason, Failed: reason, Began: noon, Stopped: noon, At: noon.Add(time.Hour), Final: joined%2 == 0,
			Faults: []string{reason, name},
		}
		for i := range int(n % 400) {
			b := summary.Builder{
				Name: name, Fate: summary.Fate((int(fate) + i) % 9), State: system, Reason: strings.Repeat(reason, i%3+1),
				Systems: []string{system, name}, Cores: i, PeakBuilds: new(i), Busy: new(time.Duration(busy)),
				Joined: noon.Add(time.Duration(joined % (1 << 40))), Left: noon,
			}
			if i%4 == 0 {
				b.Systems, b.Name = []string{strings.Repeat(system, i)}, strings.Repeat(name, i)
				r.Losses = append(r.Losses, summary.Loss{Builder: name, Reason: reason, Back: noon})
			}
			r.Builders = append(r.Builders, b)
		}
		wellFormed(t, r)
	})
}
