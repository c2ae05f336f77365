package textfile

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Where says where Put adds a block that the file does not hold yet. A block that it holds
// is changed where it stands.
type Where int

const (
	// Bottom is for formats in which the last setting wins, as nix.conf.
	Bottom Where = iota
	// Top is for formats in which the first setting wins, as ssh_config.
	Top
)

const (
	begin = "# BEGIN nix-builders "
	end   = "# END nix-builders "
)

// ErrMarkers is wrapped by every error that says a file's markers can't be trusted. The
// file is left as it is.
var ErrMarkers = errors.New("its nix-builders markers do not pair up; remove them, and what is between them, by hand")

// notes is what Take has to know of the Put that made a block.
type notes struct {
	joined   bool // the line before had no newline until Put added one
	madeFile bool // the file did not exist
	madeDirs int  // how many directories above the file did not exist
}

// String gives the notes as they stand in a BEGIN line, with a leading space unless empty.
func (n notes) String() string {
	var s string
	if n.joined {
		s += " [newline]"
	}
	if n.madeFile {
		s += " [file]"
	}
	if n.madeDirs > 0 {
		s += " [directories " + strconv.Itoa(n.madeDirs) + "]"
	}
	return s
}

func parseNotes(s string) (notes, bool) {
	var n notes
	for s != "" {
		word, rest, ok := strings.Cut(s, "]")
		word, opened := strings.CutPrefix(word, " [")
		if !ok || !opened {
			return n, false
		}
		s = rest
		switch {
		case word == "newline":
			n.joined = true
		case word == "file":
			n.madeFile = true
		case strings.HasPrefix(word, "directories "):
			dirs, err := strconv.Atoi(word[len("directories "):])
			if err != nil || dirs < 1 || dirs > 64 {
				return n, false
			}
			n.madeDirs = dirs
		default:
			return n, false
		}
	}
	return n, true
}

// block is a block found in a text: text[from:body] is its BEGIN line, text[body:tail] its
// body and text[tail:to] its END line.
type block struct {
	from, body, tail, to int
	notes                notes
	crlf                 bool // its BEGIN line ends with CRLF: somebody converted the file
}

// find looks for the block called name, which is escaped. It reports false when there is
// none, and ErrMarkers when there is anything but one whole block.
func find(text, name string) (block, bool, error) {
	var b block
	var begun, ended bool
	for at := 0; at < len(text); {
		next := len(text)
		if i := strings.IndexByte(text[at:], '\n'); i >= 0 {
			next = at + i + 1
		}
		line := strings.TrimSuffix(text[at:next], "\n")
		bare := strings.TrimSuffix(line, "\r")
		if rest, ok := strings.CutPrefix(bare, begin+name); ok && (rest == "" || rest[0] == ' ') {
			n, ok := parseNotes(rest)
			if begun || !ok {
				return b, false, fmt.Errorf("line %d: %w", 1+strings.Count(text[:at], "\n"), ErrMarkers)
			}
			begun = true
			b.from, b.body, b.notes, b.crlf = at, next, n, bare != line
		}
		if bare == end+name {
			if !begun || ended {
				return b, false, fmt.Errorf("line %d: %w", 1+strings.Count(text[:at], "\n"), ErrMarkers)
			}
			ended = true
			b.tail, b.to = at, next
		}
		at = next
	}
	if begun != ended {
		return b, false, fmt.Errorf("line %d: %w", 1+strings.Count(text[:b.from], "\n"), ErrMarkers)
	}
	return b, begun, nil
}

func render(name, body string, n notes) string {
	if body != "" && !strings.HasSuffix(body, "\n") {
		body += "\n"
	}
	return begin + name + n.String() + "\n" + body + end + name + "\n"
}

// put gives text with the block in it. made holds the notes about the file itself.
func put(text, name, body string, where Where, made notes) (string, error) {
	if _, found, err := find(body, name); found || err != nil {
		return "", errors.New("the block to put has markers of its own")
	}
	b, found, err := find(text, name)
	if err != nil {
		return "", err
	}
	switch {
	case found:
		return text[:b.from] + render(name, body, b.notes) + text[b.to:], nil
	case where == Top:
		return render(name, body, made) + text, nil
	}
	made.joined = text != "" && !strings.HasSuffix(text, "\n")
	if made.joined {
		text += "\n"
	}
	return text + render(name, body, made), nil
}

// filter gives text with only those lines of the block that keep is true for.
func filter(text, name string, keep func(line string) bool) (string, error) {
	b, found, err := find(text, name)
	if err != nil || !found {
		return text, err
	}
	var body strings.Builder
	for line := range strings.Lines(text[b.body:b.tail]) {
		if keep(strings.TrimRight(line, "\r\n")) {
			body.WriteString(line)
		}
	}
	return text[:b.body] + body.String() + text[b.tail:], nil
}

// take gives text without the block, and the block's notes; found tells whether it was there.
func take(text, name string) (rest string, n notes, found bool, err error) {
	b, found, err := find(text, name)
	if err != nil || !found {
		return text, n, false, err
	}
	before, after := text[:b.from], text[b.to:]
	if b.notes.joined && after == "" {
		// Only while nothing follows: a line that was added since must not be glued on.
		before = strings.TrimSuffix(before, "\n")
		if b.crlf {
			before = strings.TrimSuffix(before, "\r")
		}
	}
	return before + after, b.notes, true, nil
}

// escape gives name as it stands in markers: bytes that could break a line, or be taken
// for a note, as %XX. Different names stay different.
func escape(name string) string {
	var s strings.Builder
	for i := range len(name) {
		if c := name[i]; c > ' ' && c < 0x7f && c != '%' && c != '[' && c != ']' {
			s.WriteByte(c)
		} else {
			fmt.Fprintf(&s, "%%%02X", c)
		}
	}
	return s.String()
}
