package hook

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nix-community/go-nix/pkg/wire"
)

// Bounds of what Nix says. They are far above what it does say, and keep a mistake from
// becoming a use of memory without end.
const (
	maxSettings = 1 << 14
	maxWord     = 1 << 20 // a setting's name or value, a path
	maxWords    = 1 << 20 // inputs, outputs, features
)

// source reads what Nix says and keeps a copy of it, so that another hook can be told the
// same, byte for byte.
type source struct {
	r    *bufio.Reader
	tape bytes.Buffer // what was read since the last cut
}

func newSource(r io.Reader) *source { return &source{r: bufio.NewReader(r)} }

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.tape.Write(p[:n])
	return n, err
}

// cut returns the tape so far and begins a new one.
func (s *source) cut() []byte {
	b := bytes.Clone(s.tape.Bytes())
	s.tape.Reset()
	return b
}

// rest is all that was not taken from the source yet, without a copy being kept.
func (s *source) rest() io.Reader { return s.r }

func (s *source) number() (uint64, error) { return wire.ReadUint64(s) }

func (s *source) word() (string, error) { return wire.ReadString(s, maxWord) }

func (s *source) words() ([]string, error) {
	n, err := s.number()
	if err != nil {
		return nil, err
	}
	if n > maxWords {
		return nil, fmt.Errorf("%d words are more than %d", n, maxWords)
	}
	var all []string
	for range n {
		word, err := s.word()
		if err != nil {
			return nil, unexpected(err)
		}
		all = append(all, word)
	}
	return all, nil
}

// unexpected is err for the end of the input in the middle of something.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// settings are Nix' own, all of them, in its order.
type settings []setting

type setting struct{ name, value string }

func (s *source) settings() (settings, error) {
	var all settings
	for {
		more, err := s.number()
		switch {
		case err != nil && len(all) > 0:
			return nil, unexpected(err)
		case err != nil:
			return nil, err
		case more == 0:
			return all, nil
		case len(all) == maxSettings:
			return nil, fmt.Errorf("more than %d settings", maxSettings)
		}
		var one setting
		if one.name, err = s.word(); err == nil {
			one.value, err = s.word()
		}
		if err != nil {
			return nil, unexpected(err)
		}
		all = append(all, one)
	}
}

// get is the value of a setting; empty if there is none.
func (s settings) get(name string) string {
	for _, one := range slices.Backward(s) {
		if one.name == name {
			return one.value
		}
	}
	return ""
}

// has tells whether a word is among those of a setting.
func (s settings) has(name, word string) bool {
	return slices.Contains(strings.Fields(s.get(name)), word)
}

// seconds is the value of a setting that is a time; zero for none.
func (s settings) seconds(name string) time.Duration {
	n, err := strconv.ParseInt(strings.TrimSpace(s.get(name)), 10, 32)
	if err != nil || n < 0 {
		return 0
	}
	return time.Duration(n) * time.Second
}

// with are the settings with another value for one.
func (s settings) with(name, value string) settings {
	other := slices.DeleteFunc(slices.Clone(s), func(one setting) bool { return one.name == name })
	return append(other, setting{name, value})
}

func (s settings) bytes() []byte {
	var w writer
	for _, one := range s {
		w.number(1)
		w.word(one.name)
		w.word(one.value)
	}
	w.number(0)
	return w.Bytes()
}

// A request is Nix' question whether somebody else builds a derivation.
type request struct {
	willing    bool // Nix has a slot of its own for it
	system     string
	derivation string // store path
	features   []string
}

// request reads the next one; io.EOF if there is none any more.
func (s *source) request() (*request, error) {
	word, err := s.word()
	if err != nil {
		return nil, err
	}
	if word != tryWord {
		return nil, io.EOF // so Nix' own hook has it
	}
	var q request
	willing, err := s.number()
	if err == nil {
		q.willing = willing != 0
		q.system, err = s.word()
	}
	if err == nil {
		q.derivation, err = s.word()
	}
	if err == nil {
		q.features, err = s.words()
	}
	if err != nil {
		return nil, unexpected(err)
	}
	return &q, nil
}

const tryWord = "try"

// bytes are the request for a hook that is to say no only if nobody can do it: Nix will not
// build it after we have accepted it.
func (q *request) bytes() []byte {
	var w writer
	w.word(tryWord)
	w.number(0)
	w.word(q.system)
	w.word(q.derivation)
	w.words(q.features)
	return w.Bytes()
}

// local tells whether Nix could build it itself at once, by the rule of its own hook.
func (q *request) local(s settings) bool { return q.willing && q.suits(s) }

// suits tells whether Nix could build it itself at all.
func (q *request) suits(s settings) bool {
	if strings.TrimSpace(s.get("max-jobs")) == "0" {
		return false
	}
	if q.system != s.get("system") && !s.has("extra-platforms", q.system) {
		return false
	}
	return !slices.ContainsFunc(q.features, func(f string) bool { return !s.has("system-features", f) })
}

// writer writes what [source] reads. A buffer takes everything.
type writer struct{ bytes.Buffer }

func (w *writer) number(n uint64) { _ = wire.WriteUint64(w, n) }

func (w *writer) word(text string) { _ = wire.WriteString(w, text) }

func (w *writer) words(all []string) {
	w.number(uint64(len(all)))
	for _, word := range all {
		w.word(word)
	}
}
