// Package machinesfile reads the files that list machines for Nix to build on, whoever has
// written them.
package machinesfile

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A Machine is one as the file has it, as far as choosing goes.
type Machine struct {
	Store     string // URI, by which Nix names it
	Line      string // all of its line
	Systems   []string
	MaxJobs   int
	Speed     float64 // beside the others
	Features  []string
	Mandatory []string
}

// Parse reads the text of a machines file, or of the setting builders, as Nix does:
// a machine a line, or between semicolons; up to eight fields, of which all but the first may
// be missing or "-"; what follows a # counts for nothing. system is that of machines that
// name none. A file that refers to another by @ is refused.
func Parse(text, system string) ([]Machine, error) {
	var all []Machine
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		for entry := range strings.SplitSeq(line, ";") {
			if entry = strings.TrimSpace(entry); entry == "" {
				continue
			}
			m, err := parseMachine(entry, system)
			if err != nil {
				return nil, fmt.Errorf("machine %q: %w", entry, err)
			}
			all = append(all, m)
		}
	}
	return all, nil
}

// The fields of a machine's line.
const (
	fieldStore = iota
	fieldSystems
	fieldKey
	fieldMaxJobs
	fieldSpeed
	fieldFeatures
	fieldMandatory
	fieldHostKey
	fieldCount
)

func parseMachine(line, system string) (Machine, error) {
	var fields [fieldCount]string // "" if missing
	for i, f := range strings.Fields(line) {
		if i < fieldCount && f != "-" {
			fields[i] = f
		}
	}
	m := Machine{
		Store: storeURI(fields[fieldStore]), Line: line,
		Systems: []string{system}, MaxJobs: 1, Speed: 1,
		Features: list(fields[fieldFeatures]), Mandatory: list(fields[fieldMandatory]),
	}
	switch {
	case m.Store == "":
		return m, errors.New("its first field names no store")
	case strings.HasPrefix(m.Store, "@"):
		return m, errors.New("a machines file that another one refers to is not read; write its lines here")
	}
	if fields[fieldSystems] != "" {
		m.Systems = list(fields[fieldSystems])
	}
	if text := fields[fieldMaxJobs]; text != "" {
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return m, fmt.Errorf("its fourth field, builds at a time, is %q and no number", text)
		}
		m.MaxJobs = int(n)
	}
	if text := fields[fieldSpeed]; text != "" {
		speed, err := strconv.ParseFloat(text, 64)
		if err != nil || !(speed >= 0) || math.IsInf(speed, 0) {
			return m, fmt.Errorf("its fifth field, the speed factor, is %q and no number of zero or more", text)
		}
		if speed > 0 {
			m.Speed = speed
		}
	}
	if _, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(fields[fieldHostKey], "=")); err != nil {
		return m, errors.New("its eighth field, the host key, is no base64")
	}
	return m, nil
}

// storeURI completes a store that is named by its host alone, as old files have it.
func storeURI(store string) string {
	word, _, _ := strings.Cut(store, "?")
	switch {
	case store == "", strings.Contains(store, "/"), strings.HasPrefix(store, "@"):
		return store
	case word == "", word == "auto", word == "daemon", word == "local":
		return store
	}
	return "ssh://" + store
}

// list are the words of a field, each once.
func list(field string) []string {
	return slices.Compact(slices.Sorted(strings.FieldsFuncSeq(field, func(r rune) bool { return r == ',' })))
}
