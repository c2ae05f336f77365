package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/kelseyhightower/envconfig"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
)

// words is a list separated by white space (envconfig's own lists are separated by
// commas, host name lists of workflows are not).
type words []string

func (w *words) Decode(value string) error { *w = strings.Fields(value); return nil }

// seconds is a duration: a plain number counts seconds, as the action's inputs do.
type seconds time.Duration

func (s *seconds) Decode(value string) error {
	value = strings.TrimSpace(value)
	if n, err := strconv.ParseInt(value, 10, 32); err == nil {
		*s = seconds(time.Duration(n) * time.Second)
		return nil
	}
	d, err := time.ParseDuration(value)
	if err != nil {
		return errors.New("want seconds, such as 300, or a duration, such as 5m")
	}
	*s = seconds(d)
	return nil
}

// minimum is how many builders builds need: in all, and for Nix systems. The zero minimum
// needs all of them.
type minimum struct {
	total   int
	systems map[string]int
}

// systemName is what builders may call the systems that they build for.
var systemName = regexp.MustCompile(coordinator.Limits()["/offer/systems/*"].Pattern)

func (m *minimum) Decode(value string) error {
	*m = minimum{}
	given := false
	for part := range strings.FieldsFuncSeq(value, func(r rune) bool { return r == ',' || r == '\n' }) {
		system, number, isSystem := strings.Cut(part, ":")
		if !isSystem {
			number = part
		}
		number, system = strings.TrimSpace(number), strings.TrimSpace(system)
		n, err := strconv.ParseUint(number, 10, 16)
		switch {
		case strings.TrimSpace(part) == "":
			continue
		case err != nil || isSystem && n == 0:
			return errors.New("want a number, numbers for Nix systems, or both, such as 4, aarch64-darwin: 1")
		case !isSystem && given:
			return errors.New("want one number for all builders")
		case !isSystem:
			m.total, given = int(n), true
			continue
		case !systemName.MatchString(system):
			return fmt.Errorf("%q is no Nix system, such as x86_64-linux", clip(system))
		case m.systems[system] > 0:
			return fmt.Errorf("%s is there twice", system)
		case m.systems == nil:
			m.systems = make(map[string]int)
		}
		m.systems[system] = int(n)
	}
	return nil
}

// choice is one of a few words; check holds it against them.
type choice string

// secret never shows itself.
type secret string

func (secret) String() string   { return "[secret]" }
func (secret) GoString() string { return "[secret]" }

// reveal reads the secret from where the settings say: the value itself, or a file.
// Line ends around it are dropped. Both empty: nil.
func reveal(value secret, file string) ([]byte, error) {
	if file == "" {
		return []byte(strings.TrimSpace(string(value))), nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read secret: %w", err)
	}
	key := strings.TrimSpace(string(b))
	if key == "" {
		return nil, fmt.Errorf("read secret: %s is empty", file)
	}
	return []byte(key), nil
}

// reason turns envconfig's chain into what a person needs.
func reason(e *envconfig.ParseError) error {
	if num := (*strconv.NumError)(nil); errors.As(e.Err, &num) {
		return fmt.Errorf("want %s", map[string]string{
			"uint16": "a number from 1 to 65535", "int": "a whole number", "bool": "true or false",
		}[e.TypeName])
	}
	return e.Err
}

// clip keeps a message readable however long the value is.
func clip(s string) string {
	if len(s) <= 100 {
		return s
	}
	return strings.ToValidUTF8(s[:100], "") + "..."
}
