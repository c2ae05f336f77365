// Package plan turns "how many builders of which kind" into what a workflow needs:
// the job matrix, the builders' host names, and the suffix that keeps two runs apart.
//
// The counts are a JSON object from a runner label to a number, as people write it in
// a workflow's env: {"ubuntu-24.04": 2, "macos-26": 1}. A plan is refused as a whole,
// with a message that names the entry, when anything in it can't become a job.
package plan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// MaxBuilders is the most jobs that one matrix may have on GitHub.
const MaxBuilders = 256

// maxLabel is the longest DNS label (RFC 1035), which a host name must fit to
// stay whole on the tailnet.
const maxLabel = 63

// A Builder is one entry of the matrix.
type Builder struct {
	OS string `json:"os"` // runner label, what runs-on gets
	ID string `json:"id"` // OS-N, N counts from 1
}

// A Plan is the cluster that a workflow asks for.
type Plan struct {
	Suffix   string
	Builders []Builder
}

var (
	label  = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)
	suffix = regexp.MustCompile(`^[a-z0-9]{1,20}$`)
)

// Parse reads counts, a JSON object from runner label to number of builders, and
// plans their cluster. Entries keep their order; an entry of 0 adds none. The suffix
// is 1 to 20 lower-case letters and digits.
func Parse(counts []byte, run string) (Plan, error) {
	if !suffix.MatchString(run) {
		return Plan{}, fmt.Errorf("suffix %q: want 1 to 20 of a-z and 0-9", clip(run))
	}
	entries, err := decode(counts)
	if err != nil {
		return Plan{}, err
	}
	p := Plan{Suffix: run}
	names := make(map[string]string) // sanitised host name -> entry
	for _, e := range entries {
		if len(p.Builders)+e.count > MaxBuilders {
			return Plan{}, fmt.Errorf("entry %q: %d builders with the entries before it, but a matrix has at most %d jobs",
				e.label, len(p.Builders)+e.count, MaxBuilders)
		}
		for n := 1; n <= e.count; n++ {
			b := Builder{OS: e.label, ID: e.label + "-" + strconv.Itoa(n)}
			host := p.host(b)
			if len(host) > maxLabel {
				return Plan{}, fmt.Errorf("entry %q: host name %q has %d characters, at most %d fit a tailnet name",
					e.label, host, len(host), maxLabel)
			}
			key := strings.ToLower(strings.NewReplacer(".", "-", "_", "-").Replace(host))
			if other, taken := names[key]; taken {
				return Plan{}, fmt.Errorf("entry %q: host name %q is the same as one of entry %q once the tailnet has sanitised it",
					e.label, host, other)
			}
			names[key] = e.label
			p.Builders = append(p.Builders, b)
		}
	}
	if len(p.Builders) == 0 {
		return Plan{}, errors.New("no builders: every count is 0, and a workflow can't run an empty matrix")
	}
	return p, nil
}

// Hosts are the builders' host names, nix-builder-SUFFIX-ID, in the matrix's order.
func (p Plan) Hosts() []string {
	hosts := make([]string, len(p.Builders))
	for i, b := range p.Builders {
		hosts[i] = p.host(b)
	}
	return hosts
}

func (p Plan) host(b Builder) string { return "nix-builder-" + p.Suffix + "-" + b.ID }

// WriteOutputs writes the plan as the lines that $GITHUB_OUTPUT takes:
// builder_matrix (JSON array), builders_list (separated by spaces) and run_suffix.
func (p Plan) WriteOutputs(w io.Writer) error {
	matrix, err := json.Marshal(p.Builders)
	if err != nil {
		return fmt.Errorf("write plan: %w", err)
	}
	_, err = fmt.Fprintf(w, "builder_matrix=%s\nbuilders_list=%s\nrun_suffix=%s\n",
		matrix, strings.Join(p.Hosts(), " "), p.Suffix)
	return err
}

type entry struct {
	label string
	count int
}

// decode reads the object token by token: order counts, and a repeated label must
// not silently replace the first.
func decode(counts []byte) ([]entry, error) {
	if len(bytes.TrimSpace(counts)) == 0 {
		return nil, errors.New(`no builder counts: want a JSON object such as {"ubuntu-24.04": 2, "macos-26": 1}`)
	}
	d := jsontext.NewDecoder(bytes.NewReader(counts))
	open, err := d.ReadToken()
	if err != nil {
		return nil, fmt.Errorf("builder counts are not JSON: %w", err)
	}
	if open.Kind() != '{' {
		return nil, fmt.Errorf(`builder counts are not a JSON object: want {"ubuntu-24.04": 2}, got %s`, clip(string(bytes.TrimSpace(counts))))
	}
	var entries []entry
	for d.PeekKind() != '}' {
		key, err := d.ReadToken()
		if err != nil {
			return nil, fmt.Errorf("builder counts are not JSON: %w", err)
		}
		e := entry{label: key.String()}
		value, err := d.ReadValue()
		if err != nil {
			return nil, fmt.Errorf("entry %q: %w", clip(e.label), err)
		}
		if !label.MatchString(e.label) {
			return nil, fmt.Errorf("entry %q: not a runner label that can be part of a host name (letters, digits, '.', '_', '-')", clip(e.label))
		}
		e.count, err = strconv.Atoi(string(value))
		switch {
		case err != nil:
			return nil, fmt.Errorf("entry %q: %s is not a whole number of builders", e.label, clip(string(value)))
		case e.count < 0:
			return nil, fmt.Errorf("entry %q: %d builders can't be", e.label, e.count)
		case e.count > MaxBuilders:
			return nil, fmt.Errorf("entry %q: %d builders, but a matrix has at most %d jobs", e.label, e.count, MaxBuilders)
		}
		entries = append(entries, e)
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, fmt.Errorf("builder counts are not JSON: %w", err)
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return nil, errors.New("builder counts: something follows the JSON object")
	}
	return entries, nil
}

// clip keeps a message readable however long the input is.
func clip(s string) string {
	if len(s) <= 60 {
		return s
	}
	return strings.ToValidUTF8(s[:60], "") + "..."
}
