package hook

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
)

// A blame says what a failure's text makes of it.
type blame int

const (
	nobodyKnows blame = iota // it is tried elsewhere, and believed when it happens there too
	onMachine                // the builder, or the way to it
	onBuild                  // the build itself, unless the builder was in trouble meanwhile
	onVerdict                // the build itself, whatever the builder went through
	onKill                   // somebody has killed a process of it
	onDisk                   // it ran out of room
)

func (b blame) String() string {
	return [...]string{"nobody knows", "machine", "build", "verdict", "kill", "disk"}[b]
}

// A clue is text that tells what a failure is.
type clue struct {
	text *regexp.Regexp
	blame
}

// clues make one of several texts, whatever their case.
func clues(b blame, texts ...string) clue {
	return clue{regexp.MustCompile("(?i)" + strings.Join(texts, "|")), b}
}

// failed is what Nix' own hook says when the builder has built and it did not work. All else
// that it says is about the way there and back.
var failed = regexp.MustCompile(`build of '[^']*' on '[^']*' failed: `)

// builderClues are for what a builder says of a build that failed, without the build's log;
// the first that fits counts. What fits none is the build's own failure. Few hooks ever need
// them, so they are made then.
func builderClues() []clue {
	return []clue{
		clues(onVerdict,
			`hash mismatch in fixed-output derivation`,
			`timed out after \d+ seconds`,
			`killed after writing more than \d+ bytes`,
			`may not be deterministic`,
			`is not allowed to refer to`,
			`illegal reference specifier`,
			`cycle detected in`,
			`is required to build '`,
			`required system or feature not available`,
		),
		clues(onKill, `failed due to signal (9|15|1|2)\b`, `failed with exit code (137|143)\b`),
		clues(onDisk, `no space left on device`, `disk quota exceeded`, `lack of free disk space`, `database or disk is full`),
		clues(onMachine,
			`interrupted by the user`,
			`unexpected end-of-file`, `unexpected EOF`, `disconnected unexpectedly`,
			`cannot allocate memory`, `bad_alloc`, `out of memory`,
			`resource temporarily unavailable`, `too many open files`,
			`input/output error`, `read-only file system`, `stale file handle`,
			`database disk image is malformed`, `database is (locked|busy)`,
			`all build users are currently in use`, `the build users group '[^']*' has no members`,
		),
		clues(onBuild, `unable to download '.*': HTTP error`), // a server's answer
		clues(nobodyKnows,
			`while setting up the build environment`, `unable to start build process`, `unable to download '`,
		),
	}
}

// wayClues are for everything else that makes Nix' own hook fail.
func wayClues() []clue {
	return []clue{
		clues(onVerdict,
			`lacks a (valid )?signature`,
			`hash mismatch in fixed-output derivation`,
			`is not allowed to refer to`,
		),
		clues(onDisk, `no space left on device`, `disk quota exceeded`, `database or disk is full`),
		clues(onMachine,
			`disconnected unexpectedly`, `unexpected end-of-file`, `unexpected EOF`,
			`failed to start SSH connection`, `cannot build on '`,
			`cannot connect to '`, `cannot open connection to remote store`,
			`broken pipe`, `connection (reset|refused|timed out|closed)`, `no route to host`,
			`protocol mismatch`,
		),
	}
}

// logTail is where the last lines of a build's log begin, which may say anything.
var logTail = regexp.MustCompile(`(?i)[;\n]\s*last \d+ log lines:`)

// killedWords are what compilers, shells and tests say when somebody has killed one of theirs.
var killedWords = regexp.MustCompile(`(?i)\b(killed|sigkill)\b|\bsignal:? 9\b|\b(code|error|status):? (137|-9)\b|\bExitFailure \(-9\)|` +
	`out of memory|cannot allocate memory`)

// diagnose tells from its text whose failure it is.
func diagnose(text string) blame {
	at := failed.FindStringIndex(text)
	if at == nil {
		return find(wayClues(), text, nobodyKnows)
	}
	said := text[at[1]:]
	if tail := logTail.FindStringIndex(said); tail != nil {
		// What follows the log is the builder's own word again.
		said = said[:tail[0]] + afterLog(said[tail[1]:])
	}
	return find(builderClues(), said, onBuild)
}

// afterLog is what Nix 2.26 adds behind the log's lines.
func afterLog(text string) string {
	if i := strings.LastIndex(text, "\nnote: build failure may have been caused by"); i >= 0 {
		return text[i:]
	}
	return ""
}

func find(clues []clue, text string, otherwise blame) blame {
	for _, c := range clues {
		if c.text.MatchString(text) {
			return c.blame
		}
	}
	return otherwise
}

// judge tells whether a failure is the build's own, so that trying it elsewhere is in vain;
// if not, reason says in a few words what was wrong. condition is what the builder's host went
// through meanwhile, again says that another builder has failed with the same text.
func judge(text string, condition scheduler.Condition, again bool) (final bool, reason string) {
	b := diagnose(text)
	known := condition.Unknown == ""
	switch {
	case b == onVerdict:
		return true, ""
	case b == onMachine:
		return false, summary(text)
	case known && condition.OOMKills > 0 && (b == onKill || killedWords.MatchString(text)):
		if condition.OOMKills == 1 {
			return false, "it ran out of memory, and a process was killed"
		}
		return false, fmt.Sprintf("it ran out of memory, and %d processes were killed", condition.OOMKills)
	case known && condition.DiskFull:
		return false, "its disk was full"
	case known && condition.Leaving:
		return false, "it is about to leave"
	case b == onBuild:
		return true, ""
	case b != nobodyKnows && known: // nothing has happened there that would explain it
		return true, ""
	default:
		return again, summary(text)
	}
}

// summary is a text in one line, without what all have at their beginning, the build's log,
// and what goes beyond a line.
func summary(text string) string {
	const most = 160
	if at := failed.FindStringIndex(text); at != nil {
		text = text[at[1]:]
	}
	if tail := logTail.FindStringIndex(text); tail != nil {
		text = text[:tail[0]]
	}
	text = strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "error: ", "")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}
