// Package actions speaks with GitHub's runner: workflow commands in a step's log, and
// the files by which a step hands outputs, variables and its summary over.
//
// What others say, a builder's reason or SSH's complaint, ends in both. It is never
// taken for a command, and a value never carries a second name.
package actions

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
)

// A Log writes to the log of a step, where some lines are commands to the runner. Plain
// writes are never commands: what would make them such is pulled apart by a space. Only
// the methods give commands. A Log may be used by many goroutines at once.
type Log struct {
	mu   sync.Mutex
	out  io.Writer // guarded by mu
	line line      // guarded by mu; what the runner has seen of the current line
}

// NewLog returns the log that out leads to, which stands at the beginning of a line.
func NewLog(out io.Writer) *Log { return &Log{out: out, line: newLine} }

// Write writes plain text.
func (l *Log) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.out.Write(l.line.defuse(text)); err != nil {
		return 0, err
	}
	return len(text), nil
}

// Group folds the lines that follow, until EndGroup, under a title.
func (l *Log) Group(title string) { l.command("group", "", title) }

// EndGroup ends what Group began.
func (l *Log) EndGroup() { l.command("endgroup", "", "") }

// Notice shows a message beside the run.
func (l *Log) Notice(title, message string) { l.command("notice", title, message) }

// Warning shows a message beside the run, for a person to act on.
func (l *Log) Warning(title, message string) { l.command("warning", title, message) }

// Error shows a message beside the run, about why it failed.
func (l *Log) Error(title, message string) { l.command("error", title, message) }

// Mask makes the runner hide a secret wherever it would be shown from now on: whole, and
// line by line, since the runner looks at one line at a time. The empty secret is none.
func (l *Log) Mask(secret string) {
	whole := strings.TrimSpace(secret)
	for part := range strings.Lines(secret) {
		if part = strings.TrimSpace(part); part != "" && part != whole {
			l.command("add-mask", "", part)
		}
	}
	if whole != "" {
		l.command("add-mask", "", whole)
	}
}

// maxMessage bounds what one command carries, in bytes: a person reads it beside a run,
// and the runner cuts what is much longer.
const maxMessage = 16 << 10

// command writes one command on a line of its own. Nobody could be told that the log is
// broken, so an error is dropped.
func (l *Log) command(name, title, data string) {
	var b bytes.Buffer
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.line.fresh() {
		b.WriteByte('\n')
	}
	b.WriteString("::" + name)
	if title != "" {
		b.WriteString(" title=" + escapeProperty(title))
	}
	fmt.Fprintf(&b, "::%s\n", escapeData(clip(data)))
	l.line = newLine
	_, _ = l.out.Write(b.Bytes())
}

func clip(data string) string {
	if len(data) <= maxMessage {
		return data
	}
	return strings.ToValidUTF8(data[:maxMessage], "") + "..."
}

// A line is what matters of a line so far: whether only white space came, after which
// two colons begin a command, and its last two bytes, for the older form of commands,
// ##[, which counts anywhere in a line.
type line struct {
	blank bool
	last  [2]byte
}

var newLine = line{blank: true}

func (l *line) fresh() bool { return *l == newLine }

// defuse returns text with a space where a command would begin.
func (l *line) defuse(text []byte) []byte {
	safe := make([]byte, 0, len(text)+8)
	for _, b := range text {
		if l.blank && b == ':' && l.last[1] == ':' || b == '[' && l.last == [2]byte{'#', '#'} {
			safe = append(safe, ' ')
			l.last = [2]byte{}
		}
		safe = append(safe, b)
		switch {
		case b == '\n' || b == '\r':
			*l = newLine
			continue
		case b <= ' ', b == 0x7f, b == ':', b >= 0x80:
			// Still blank: white space, the first colon, or what may be the white space of
			// another alphabet. Better a space too many than a command.
		default:
			l.blank = false
		}
		l.last = [2]byte{l.last[1], b}
	}
	return safe
}
