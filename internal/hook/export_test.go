package hook

import (
	"bytes"
	"io"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
)

// Judge is judge, for a table of what Nix says.
func Judge(text string, c scheduler.Condition, again bool) (final bool, reason string) {
	return judge(text, c, again)
}

// Diagnose is diagnose in words.
func Diagnose(text string) string { return diagnose(text).String() }

// ReadAll reads settings and requests until there is no more, and returns what it has kept of
// them, what it left, and why it ended.
func ReadAll(r io.Reader) (tape, rest []byte, requests int, err error) {
	s := newSource(r)
	_, err = s.settings()
	for err == nil {
		if _, err = s.request(); err == nil {
			requests++
		}
	}
	tape = s.cut()
	rest, _ = io.ReadAll(s.rest())
	return tape, rest, requests, err
}

// Say encodes settings, in pairs, and a request as Nix does.
func Say(pairs []string, willing uint64, system, derivation string, features ...string) []byte {
	var all settings
	for i := 0; i+1 < len(pairs); i += 2 {
		all = append(all, setting{pairs[i], pairs[i+1]})
	}
	w := writer{}
	w.Write(all.bytes())
	w.Write(SayTry(willing, system, derivation, features...))
	return w.Bytes()
}

// SayTry encodes a request as Nix does.
func SayTry(willing uint64, system, derivation string, features ...string) []byte {
	var w writer
	w.word(tryWord)
	w.number(willing)
	w.word(system)
	w.word(derivation)
	w.words(features)
	return w.Bytes()
}

// SayWords encodes lists of words as Nix does.
func SayWords(lists ...[]string) []byte {
	var w writer
	for _, l := range lists {
		w.words(l)
	}
	return w.Bytes()
}

// Heard is what a hook was told, for a stand-in of Nix' own.
type Heard struct{ s *source }

func Hear(r io.Reader) Heard { return Heard{newSource(r)} }

func (h Heard) Settings() (func(name string) string, error) {
	all, err := h.s.settings()
	return all.get, err
}

func (h Heard) Request() (derivation string, willing bool, err error) {
	q, err := h.s.request()
	if err != nil {
		return "", false, err
	}
	return q.derivation, q.willing, nil
}

func (h Heard) Words() ([]string, error) { return h.s.words() }

// Local tells whether a request that was said could be met by Nix itself.
func Local(said []byte) (bool, error) {
	s := newSource(bytes.NewReader(said))
	all, err := s.settings()
	if err != nil {
		return false, err
	}
	q, err := s.request()
	if err != nil {
		return false, err
	}
	return q.local(all), nil
}
