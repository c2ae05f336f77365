package plan

import (
	"bytes"
	"regexp"
	"strings"
)

// A dryRun reads what nix build --dry-run says. It writes headings, each with store paths
// below it:
//
//	these 2 derivations will be built:
//	  /nix/store/...-a.drv
//	  /nix/store/...-b.drv
//	these 1 paths will be fetched (0.02 MiB download, 0.06 MiB unpacked):
//	  /nix/store/...-c
//
// Nobody promises that wording, so the heading and the derivations below it count each for
// itself: if one of them changes, a build is still seen.
type dryRun struct {
	say func(line string)

	line        []byte   // what has come of the line that has not ended
	derivations int      // that were listed
	heading     bool     // something will be built
	last        []string // lines that are no lists, the last of them
}

const (
	maxLine = 4 << 10
	maxLast = 12
)

var (
	willBuild  = regexp.MustCompile(`^(this derivation|these( \d+)? derivations) will be built:?$`)
	unknown    = regexp.MustCompile(`^don't know how to build `)
	listedPath = regexp.MustCompile(`^\s+/\S+$`)
)

// Write implements [io.Writer].
func (r *dryRun) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		part, rest, ended := bytes.Cut(p, []byte("\n"))
		r.line = append(r.line, part[:min(len(part), maxLine-len(r.line))]...)
		if ended {
			r.end()
		}
		p = rest
	}
	return n, nil
}

// end takes the line in as it is.
func (r *dryRun) end() {
	line := strings.TrimRight(strings.ToValidUTF8(string(r.line), ""), " \t\r")
	r.line = r.line[:0]
	switch {
	case line == "":
		return
	case listedPath.MatchString(line):
		if strings.HasSuffix(line, ".drv") {
			r.derivations++
		}
		return
	case willBuild.MatchString(line), unknown.MatchString(line):
		r.heading = true
	}
	r.last = append(r.last, line)
	r.last = r.last[max(0, len(r.last)-maxLast):]
	if r.say != nil {
		r.say(line)
	}
}

// missing is how many derivations are to be built, 1 if it is not known how many.
func (r *dryRun) missing() int {
	if r.heading {
		return max(1, r.derivations)
	}
	return r.derivations
}
