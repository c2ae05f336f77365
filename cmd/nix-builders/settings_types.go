package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/kelseyhightower/envconfig"
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
