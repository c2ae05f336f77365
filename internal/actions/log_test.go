package actions_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/actions"
)

func TestCommands(t *testing.T) {
	var out bytes.Buffer
	log := actions.NewLog(&out)
	log.Group("Waiting for 4 builders")
	fmt.Fprintln(log, "  b1 is ready")
	log.EndGroup()
	log.Notice("Ready", "4 of 4 builders, 100% of them")
	log.Warning("a: b, c\n::error::d", "first\nsecond\r\n::set-env name=x::y")
	fmt.Fprint(log, "no line end")
	log.Error("", "alone on its line")
	log.Mask("s3cret")
	log.Mask("  one\ntwo\n")
	log.Mask("")
	want := `::group::Waiting for 4 builders
  b1 is ready
::endgroup::
::notice title=Ready::4 of 4 builders, 100%25 of them
::warning title=a%3A b%2C c%0A%3A%3Aerror%3A%3Ad::first%0Asecond%0D%0A::set-env name=x::y
no line end
::error::alone on its line
::add-mask::s3cret
::add-mask::one
::add-mask::two
::add-mask::one%0Atwo
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("the log (-want +got):\n%s", diff)
	}
}

// What somebody else says is no command, wherever in a line it stands and however it
// is cut into writes.
func TestPlainTextIsNoCommand(t *testing.T) {
	for _, text := range []string{
		"::error::x\n", " \t::error::x\n", "a\n::stop-commands::x\n", "a\r::set-env name=PATH::x\n",
		"\u00a0::error::x", "\u3000\u2028::error::x", "it says ##[error]x\n", "###[group]x", "##[[x", ":::x", "##\n[x",
	} {
		for cut := range len(text) {
			var out bytes.Buffer
			log := actions.NewLog(&out)
			for _, part := range []string{text[:cut], text[cut:]} {
				if n, err := log.Write([]byte(part)); n != len(part) || err != nil {
					t.Fatalf("write %q: %d, %v", part, n, err)
				}
			}
			for _, line := range logLines(out.String()) {
				if isCommand(line) {
					t.Errorf("%q, cut at %d, became a command: %q", text, cut, line)
				}
			}
		}
	}
	var out bytes.Buffer
	ordinary := "a::b ##x [1] std::vector ::\n# [x] nix-store::\n"
	fmt.Fprint(actions.NewLog(&out), ordinary)
	if out.String() != ordinary {
		t.Errorf("%q became %q", ordinary, out.String())
	}
}

func FuzzPlainText(f *testing.F) {
	f.Add("a\n", "::error::x")
	f.Add("##", "[error]x")
	f.Add(":", ":debug::")
	f.Fuzz(func(t *testing.T, a, b string) {
		var out bytes.Buffer
		log := actions.NewLog(&out)
		fmt.Fprint(log, a)
		fmt.Fprint(log, b)
		for _, line := range logLines(out.String()) {
			if isCommand(line) {
				t.Errorf("%q, %q: %q is a command", a, b, line)
			}
		}
		if got, want := strings.ReplaceAll(out.String(), " ", ""), strings.ReplaceAll(a+b, " ", ""); got != want {
			t.Errorf("%q became %q", want, got)
		}
	})
}

func FuzzCommand(f *testing.F) {
	f.Add("title", "message")
	f.Add("a,file=/etc/passwd", "%0A::error::x")
	f.Add("::", "\n::set-env name=x::y")
	f.Add("%3A", "\r\n%25")
	f.Fuzz(func(t *testing.T, title, message string) {
		var out bytes.Buffer
		actions.NewLog(&out).Warning(title, message)
		lines := logLines(out.String())
		if len(lines) != 1 {
			t.Fatalf("%q, %q: %d lines: %q", title, message, len(lines), lines)
		}
		head, data, ok := strings.Cut(strings.TrimPrefix(lines[0], "::"), "::")
		name, properties, _ := strings.Cut(head, " ")
		if !ok || name != "warning" {
			t.Fatalf("%q, %q: command %q", title, message, lines[0])
		}
		if len(message) < 16<<10 {
			if got := unescape(data, false); got != message {
				t.Errorf("message %q arrives as %q", message, got)
			}
		}
		if title == "" {
			return
		}
		key, value, _ := strings.Cut(properties, "=")
		if key != "title" || strings.Contains(value, ",") || unescape(value, true) != title {
			t.Errorf("title %q arrives as %q", title, properties)
		}
	})
}

// logLines are the lines of a step's log as the runner takes them.
func logLines(log string) []string {
	lines := strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(log), "\n")
	if n := len(lines); lines[n-1] == "" {
		lines = lines[:n-1]
	}
	return lines
}

// isCommand says whether the runner might take a line for a command, of either form.
func isCommand(line string) bool {
	return strings.HasPrefix(strings.TrimLeftFunc(line, unicode.IsSpace), "::") || strings.Contains(line, "##[")
}

// unescape does what the runner does with a command's parts.
func unescape(s string, property bool) string {
	if property {
		s = strings.NewReplacer("%3A", ":", "%2C", ",", "%0D", "\r", "%0A", "\n", "%25", "%").Replace(s)
		return s
	}
	return strings.NewReplacer("%0D", "\r", "%0A", "\n", "%25", "%").Replace(s)
}
