package plan

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json/jsontext"
)

// An entry is one wish for builders, the same for all that it counts.
type entry struct {
	where  string // names the entry in messages
	labels Labels
	prefix string // what their ids begin with
	count  int

	maxJobs, speedFactor int // 0: not said
}

const wanted = `want a JSON object such as {"ubuntu-24.04": 2, "macos-26": 1}, or an array such as ["ubuntu-24.04", {"runs-on": "macos-26", "count": 2}]`

// decode reads the input token by token: order counts, a repeated label must not silently
// replace the first, and whatever is wrong is wrong with a certain entry.
func decode(builders []byte) ([]entry, error) {
	builders = bytes.TrimSpace(builders)
	if len(builders) == 0 {
		return nil, errors.New("no builders: " + wanted)
	}
	d := jsontext.NewDecoder(bytes.NewReader(builders))
	open, err := d.ReadToken()
	if err != nil {
		return nil, notJSON(err)
	}
	var entries []entry
	switch open.Kind() {
	case '{':
		entries, err = decodeCounts(d)
	case '[':
		entries, err = decodeList(d)
	default:
		return nil, fmt.Errorf("builders: %s, got %s", wanted, clip(string(builders)))
	}
	if err != nil {
		return nil, err
	}
	if _, err := d.ReadToken(); err != nil { // the closing bracket
		return nil, notJSON(err)
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return nil, errors.New("builders: something follows the JSON value")
	}
	return entries, nil
}

func decodeCounts(d *jsontext.Decoder) ([]entry, error) {
	var entries []entry
	for d.PeekKind() != '}' {
		key, err := d.ReadToken()
		if err != nil {
			return nil, notJSON(err)
		}
		label := key.String()
		e := entry{where: fmt.Sprintf("entry %q", clip(label)), labels: Labels{label}, prefix: label}
		value, err := d.ReadValue()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.where, err)
		}
		if err := checkPrefix(label); err != nil {
			return nil, fmt.Errorf("%s: %w", e.where, err)
		}
		if e.count, err = count(value); err != nil {
			return nil, fmt.Errorf("%s: %w", e.where, err)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func decodeList(d *jsontext.Decoder) ([]entry, error) {
	var entries []entry
	for n := 1; d.PeekKind() != ']'; n++ {
		value, err := d.ReadValue()
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", n, notJSON(err))
		}
		e := entry{where: fmt.Sprintf("entry %d", n), count: 1}
		switch value.Kind() {
		case '"':
			e.labels, err = labels(value)
		case '{':
			err = e.decode(value)
		default:
			err = fmt.Errorf("want a runner label or an object with runs-on, got %s", clip(string(value)))
		}
		if err == nil && e.prefix == "" {
			e.prefix = strings.Join(e.labels, "-")
			if err = checkPrefix(e.prefix); err != nil {
				err = fmt.Errorf("%w: give the entry a name", err)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.where, err)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// decode reads the members of an object in a list.
func (e *entry) decode(object jsontext.Value) error {
	d := jsontext.NewDecoder(bytes.NewReader(object))
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() != '}' {
		key, err := d.ReadToken()
		if err != nil {
			return err
		}
		name := key.String()
		value, err := d.ReadValue()
		if err != nil {
			return err
		}
		switch name {
		case "runs-on":
			e.labels, err = labels(value)
		case "count":
			e.count, err = count(value)
		case "name":
			if err = text(value, &e.prefix); err == nil {
				err = checkPrefix(e.prefix)
			}
		case "max_jobs":
			e.maxJobs, err = between(value, 1, 4096)
		case "speed_factor":
			e.speedFactor, err = between(value, 1, 1000)
		default:
			err = errors.New("there is no such member: want runs-on, count, name, max_jobs or speed_factor")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", clip(name), err)
		}
	}
	if e.labels == nil {
		return errors.New("runs-on is missing, the label of the runners that it is to get")
	}
	return nil
}

// labels reads what runs-on takes: a label, or an array of labels.
func labels(value jsontext.Value) (Labels, error) {
	var list Labels
	if k := value.Kind(); k != '"' && k != '[' || list.UnmarshalJSON(value) != nil {
		return nil, fmt.Errorf("want a runner label or an array of them, got %s", clip(string(value)))
	}
	if len(list) == 0 {
		return nil, errors.New("an empty array of labels is no runner")
	}
	for _, l := range list {
		if strings.TrimSpace(l) == "" || len(l) > 256 || strings.ContainsFunc(l, unicode.IsControl) {
			return nil, fmt.Errorf("%q is not a runner label", clip(l))
		}
	}
	return list, nil
}

func checkPrefix(s string) error {
	if !part.MatchString(s) {
		return fmt.Errorf("%q can't be part of a host name (letters, digits, '.', '_', '-')", clip(s))
	}
	return nil
}

func count(value jsontext.Value) (int, error) {
	n, err := strconv.Atoi(string(value))
	switch {
	case err != nil:
		return 0, fmt.Errorf("%s is not a whole number of builders", clip(string(value)))
	case n < 0:
		return 0, fmt.Errorf("%d builders can't be", n)
	case n > MaxBuilders:
		return 0, fmt.Errorf("%d builders, but a matrix has at most %d jobs", n, MaxBuilders)
	}
	return n, nil
}

func between(value jsontext.Value, low, high int) (int, error) {
	n, err := strconv.Atoi(string(value))
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("%s is not a whole number from %d to %d", clip(string(value)), low, high)
	}
	return n, nil
}

func text(value jsontext.Value, s *string) error {
	if value.Kind() != '"' {
		return fmt.Errorf("%s is not a string", clip(string(value)))
	}
	raw, err := jsontext.AppendUnquote(nil, value)
	*s = string(raw)
	return err
}

func notJSON(err error) error { return fmt.Errorf("builders are not JSON: %w", err) }
