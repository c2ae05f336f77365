// Package plan turns "how many builders of which kind" into what a workflow needs: the
// job matrix, the builders' host names, the suffix that keeps two runs apart, and whether
// there is anything to build at all.
//
// Builders are asked for in JSON, in one of two forms. Counts are an object from runner
// label to number, {"ubuntu-24.04": 2, "macos-26": 1}. A list is an array of labels and of
// objects that say more: {"runs-on": ["self-hosted", "big"], "count": 2, "max_jobs": 8}.
// A plan is refused as a whole, with a message that names the entry, when anything in it
// can't become a job.
package plan

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// MaxBuilders is the most jobs that one matrix may have on GitHub.
const MaxBuilders = 256

// maxLabel is the longest DNS label (RFC 1035), which a host name must fit to
// stay whole on the tailnet.
const maxLabel = 63

// A Builder is one entry of the matrix.
type Builder struct {
	OS   Labels `json:"os"`
	ID   string `json:"id"`   // PREFIX-N, N counts from 1; unique
	Name string `json:"name"` // host name, nix-builder-SUFFIX-ID
	// What the builder is to say of itself; absent if zero.
	MaxJobs     int `json:"max_jobs,omitempty"`
	SpeedFactor int `json:"speed_factor,omitempty"`
}

// A Plan is the cluster that a workflow asks for.
type Plan struct {
	Suffix   string
	Builders []Builder
}

var (
	// part can be a part of a host name.
	part   = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)
	suffix = regexp.MustCompile(`^[a-z0-9]{1,20}$`)
)

// Parse reads the builders that are asked for and plans their cluster. Entries keep their
// order; a count of 0 adds none. The suffix is 1 to 20 lower-case letters and digits.
func Parse(builders []byte, run string) (Plan, error) {
	if !suffix.MatchString(run) {
		return Plan{}, fmt.Errorf("suffix %q: want 1 to 20 of a-z and 0-9", clip(run))
	}
	entries, err := decode(builders)
	if err != nil {
		return Plan{}, err
	}
	p := Plan{Suffix: run}
	numbers := make(map[string]int)  // prefix -> highest number given out
	names := make(map[string]string) // sanitised host name -> entry
	for _, e := range entries {
		if len(p.Builders)+e.count > MaxBuilders {
			return Plan{}, fmt.Errorf("%s: %d builders with the entries before it, but a matrix has at most %d jobs",
				e.where, len(p.Builders)+e.count, MaxBuilders)
		}
		for range e.count {
			numbers[e.prefix]++
			id := e.prefix + "-" + strconv.Itoa(numbers[e.prefix])
			host := "nix-builder-" + run + "-" + id
			if len(host) > maxLabel {
				return Plan{}, fmt.Errorf("%s: host name %q has %d characters, at most %d fit a tailnet name",
					e.where, host, len(host), maxLabel)
			}
			key := strings.ToLower(strings.NewReplacer(".", "-", "_", "-").Replace(host))
			if other, taken := names[key]; taken {
				return Plan{}, fmt.Errorf("%s: host name %q is the same as one of %s once the tailnet has sanitised it",
					e.where, host, other)
			}
			names[key] = e.where
			p.Builders = append(p.Builders, Builder{OS: e.labels, ID: id, Name: host, MaxJobs: e.maxJobs, SpeedFactor: e.speedFactor})
		}
	}
	if len(p.Builders) == 0 {
		return Plan{}, errors.New("no builders: every count is 0, and a workflow can't run an empty matrix")
	}
	return p, nil
}

// Hosts are the builders' host names in the matrix's order.
func (p Plan) Hosts() []string {
	hosts := make([]string, len(p.Builders))
	for i, b := range p.Builders {
		hosts[i] = b.Name
	}
	return hosts
}

// clip keeps a message readable however long the input is.
func clip(s string) string {
	if len(s) <= 60 {
		return s
	}
	return strings.ToValidUTF8(s[:60], "") + "..."
}
