package nixstore_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"github.com/nix-community/go-nix/pkg/wire"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nixstore"
)

// What the real daemon says is the matter of e2e/nixstore_test.go. Here it is scripted, for
// what a real one says seldom or never.

const (
	path = "/nix/store/00000000000000000000000000000000-a"
	hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

	last  = 0x616c7473
	next  = 0x6f6c6d67
	fails = 0x63787470
	start = 0x53545254
	stop  = 0x53544f50
	told  = 0x52534c54
)

// say encodes numbers and strings.
func say(words ...any) []byte {
	var b bytes.Buffer
	for _, w := range words {
		switch w := w.(type) {
		case int:
			_ = wire.WriteUint64(&b, uint64(w))
		case string:
			_ = wire.WriteString(&b, w)
		}
	}
	return b.Bytes()
}

// hello is how a daemon of this minor version begins.
func hello(minor int) []byte {
	words := []any{0x6478696f, 1<<8 | minor}
	if minor >= 33 {
		words = append(words, "2.34.8")
	}
	if minor >= 35 {
		words = append(words, 1)
	}
	return say(append(words, last)...)
}

func info(refs ...any) []byte {
	words := append([]any{last, 1, "", hash, len(refs)}, refs...)
	return say(append(words, 1700000000, 120, 1, 1, "key:sig", "")...)
}

// answer is a daemon that says all of script at once, whatever it is asked, and then ends.
func answer(t testing.TB, script ...[]byte) (*nixstore.Conn, error) {
	t.Helper()
	return nixstore.Greet(t.Context(), tape{Reader: bytes.NewReader(bytes.Join(script, nil))})
}

// A tape is a connection to somebody who does not listen.
type tape struct {
	io.Reader
	net.Conn
}

func (t tape) Read(b []byte) (int, error)  { return t.Reader.Read(b) }
func (t tape) Write(b []byte) (int, error) { return len(b), nil }
func (t tape) SetDeadline(time.Time) error { return nil }
func (t tape) Close() error                { return nil }

func TestVersions(t *testing.T) {
	for _, minor := range []int{32, 33, 34, 35, 38, 60} {
		script := hello(min(minor, 35))
		script[8] = byte(minor)
		c, err := answer(t, script, info(path))
		if err != nil {
			t.Errorf("1.%d: %v", minor, err)
			continue
		}
		got, err := c.PathInfo(t.Context(), path)
		want := nixstore.Info{
			Path: path, NarSize: 120, References: []string{path},
			NarHash: "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
		}
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("1.%d: %v (-want +got):\n%s", minor, err, diff)
		}
	}
}

func TestWhatIsNoDaemon(t *testing.T) {
	for name, script := range map[string][]byte{
		"nothing":     nil,
		"HTTP":        []byte("HTTP/1.1 400 Bad Request\r\n\r\n"),
		"too old":     say(0x6478696f, 1<<8|21),
		"too new":     say(0x6478696f, 2<<8),
		"half a word": say(0x6478696f)[:5],
		"refuses":     append(hello(35)[:len(hello(35))-8], say(fails, "Error", 0, "Error", "no room", 0, 0)...),
	} {
		if c, err := answer(t, script); err == nil || c != nil {
			t.Errorf("%s: it is taken for a daemon", name)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: more than a line: %q", name, err)
		}
	}
}

func TestErrorsAreNixOwnWords(t *testing.T) {
	log := say(
		next, "evaluating\n", start, 7, 3, 101, "copying", 2, 0, 5, 1, "x", 0, told, 7, 105, 1, 0, 9, stop, 7,
		fails, "Error", 0, "Error", "\x1b[31;1merror:\x1b[0m path\n  'x' is odd", 0, 1, 0, "while asking",
	)
	c, err := answer(t, hello(35), log, info())
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.PathInfo(t.Context(), path)
	if nix, ok := errors.AsType[*nixstore.Error](err); !ok || nix.Message != "error: path 'x' is odd" {
		t.Errorf("got %v", err)
	}
	if _, err := c.PathInfo(t.Context(), path); err != nil {
		t.Errorf("the connection can't be used after an error of the daemon's: %v", err)
	}
	if _, err := c.PathInfo(t.Context(), path); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the daemon is gone, and the error is %v", err)
	}
}

func TestInvalid(t *testing.T) {
	c, err := answer(t, hello(35), say(last, 0), say(last, 2, "out", path, "dev", ""))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.PathInfo(t.Context(), path); !errors.Is(err, nixstore.ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
	got, err := c.Outputs(t.Context(), path+".drv")
	if diff := cmp.Diff(map[string]string{"out": path, "dev": ""}, got); err != nil || diff != "" {
		t.Errorf("outputs: %v (-want +got):\n%s", err, diff)
	}
}

// A daemon that sends nonsense costs its connection, within bounds.
func TestNonsense(t *testing.T) {
	for name, script := range map[string][]byte{
		"unknown word":    say(1),
		"endless string":  say(next, 1<<40),
		"no boolean":      say(last, 7),
		"no hash":         say(last, 1, "", "xyz", 0, 0, 0, 0, 0, ""),
		"many references": say(last, 1, "", hash, 1<<30),
		"huge":            say(last, 1, "", hash, 0, 0, -1, 0, 0, ""),
		"field":           say(told, 7, 105, 1, 9),
	} {
		c, err := answer(t, hello(35), script, info())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.PathInfo(t.Context(), path); err == nil {
			t.Errorf("%s: it is believed", name)
		}
		if _, err := c.PathInfo(t.Context(), path); err == nil || !strings.Contains(err.Error(), "broke before") {
			t.Errorf("%s: the connection is used again: %v", name, err)
		}
	}
}

func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, daemon := net.Pipe()
		defer daemon.Close()
		defer ours.Close()
		go func() { _, _ = io.Copy(io.Discard, daemon) }()
		why := errors.New("lost patience")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, why)
		defer cancel()
		if _, err := nixstore.Greet(ctx, ours); !errors.Is(err, why) {
			t.Errorf("got %v, want %v", err, why)
		}
	})
}

// An answer is bounded as a whole too, not only each of its parts.
func TestEndlessAnswer(t *testing.T) {
	reference := say(strings.Repeat("x", 60<<10))
	begin := bytes.NewReader(slices.Concat(hello(35), say(last, 1, "", hash, 60<<10)))
	c, err := nixstore.Greet(t.Context(), tape{Reader: io.MultiReader(begin, &loop{text: reference})})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.PathInfo(t.Context(), path); err == nil || !strings.Contains(err.Error(), "is longer than") {
		t.Errorf("got %v", err)
	}
}

// A loop says the same again and again.
type loop struct {
	text []byte
	at   int
}

func (l *loop) Read(b []byte) (int, error) {
	n := copy(b, l.text[l.at:])
	l.at = (l.at + n) % len(l.text)
	return n, nil
}

// Whatever is said for a daemon's greeting and its answers, no more is believed than can be, and
// an error is a line that a person can read.
func FuzzAnswer(f *testing.F) {
	f.Add(info(path))
	f.Add(hello(38))
	f.Add(say(last, 2, "out", path, "dev", ""))
	f.Add(say(fails, "Error", 0, "Error", "no\x1b[2J", 0, 1, 0, "trace"))
	f.Add(say(start, 7, 3, 101, "copying", 2, 0, 5, 1, "x", 0, told, 7, 105, 1, 0, 9, stop, 7, last, 0))
	f.Fuzz(func(t *testing.T, script []byte) {
		_, greeted := answer(t, script)
		c, err := answer(t, hello(35), script)
		if err != nil {
			t.Fatal(err)
		}
		got, asked := c.PathInfo(t.Context(), path)
		if asked == nil && (got.NarSize < 0 || !strings.HasPrefix(got.NarHash, "sha256:")) {
			t.Errorf("believed %+v", got)
		}
		if c, err = answer(t, hello(35), script); err != nil {
			t.Fatal(err)
		}
		_, mapped := c.Outputs(t.Context(), path)
		for _, err := range []error{greeted, asked, mapped} {
			if err != nil && strings.ContainsFunc(err.Error(), unicode.IsControl) {
				t.Errorf("an error is %q", err)
			}
		}
	})
}
