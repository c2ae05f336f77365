package hook

import (
	"bytes"
	"context"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
)

// An attempt is one run of Nix' own hook for a builder, until that has ended.
type attempt struct {
	h       *hook
	machine string // its name; empty if Nix' own hook looks for one itself
	uri     []byte // how Nix' own hook names its store
	stage   stage
	asks    int // how often Nix' own hook was asked again
	clock   clock
	open    map[uint64]bool // activities that it has begun
	held    []byte          // messages that are shown once it is decided that nobody tries again
	errors  []string        // their texts, those that are errors
	end     ending
}

// stage is how far Nix' own hook has come.
type stage int

const (
	asked    stage = iota // it was asked to build
	accepted              // its next line names the store
	building
)

// ending is why an attempt was ended before its time; the zero ending is for none.
type ending struct {
	lost     string // the builder was lost: why
	timedOut string // what the user is told
	gone     bool   // Nix wants it no longer
	refused  bool   // Nix' own hook has no builder
}

func (e ending) some() bool { return e != ending{} }

// try runs Nix' own hook for a machine; an error says that it can't be started.
func (h *hook) try(ctx context.Context, run scheduler.Message) (*attempt, int, error) {
	set := h.settings
	if run.Machine != "" {
		set = set.with("builders", run.Line)
	}
	c, err := h.start(slices.Concat(set.bytes(), h.request.bytes()))
	if err != nil {
		return nil, 0, err
	}
	a := &attempt{h: h, machine: run.Machine, open: make(map[uint64]bool)}
	if words := strings.Fields(run.Line); len(words) > 0 {
		a.uri = []byte(words[0]) // until it says so itself
	}
	code := a.follow(ctx, c)
	for id := range a.open {
		h.out.stop(id)
	}
	return a, code, nil
}

// follow relays what the child writes until it has ended, and returns its exit code.
func (a *attempt) follow(ctx context.Context, c *child) int {
	var again *time.Timer // to ask once more
	var asking <-chan time.Time
	defer func() {
		if again != nil {
			again.Stop()
		}
	}()
	lines, done := c.lines, ctx.Done()
	var ended <-chan struct{} // nil until all that it wrote is read
	for {
		select {
		case l, more := <-lines:
			if !more {
				lines, ended = nil, c.ended
				break
			}
			switch word := a.line(c, l); {
			case word == "postpone" && (a.machine == "" || a.asks < maxAsks):
				a.asks++
				again = time.NewTimer(askPause)
				asking = again.C
			case word != "" && word != "accept" && !a.end.some():
				a.end.refused = true
				close(c.input)
			}
		case <-asking:
			asking = nil
			c.input <- a.h.request.bytes()
		case m, more := <-a.h.seat.messages():
			switch {
			case !more:
				a.h.seat.lose()
			case m.Op == scheduler.OpLost && m.Machine == a.machine && a.machine != "":
				a.finish(c, ending{lost: m.Reason})
			}
		case s := <-a.h.seat.found:
			a.h.seat.take(s)
		case <-a.clock.ticks():
			if text := a.clock.expired(); text != "" {
				a.finish(c, ending{timedOut: text})
			}
		case <-done:
			done = nil
			a.finish(c, ending{gone: true})
		case <-ended:
			a.clock.stop()
			return c.code()
		}
	}
}

const (
	// askPause is between two requests to Nix' own hook while it has no free builder.
	askPause = time.Second
	// maxAsks is how often it is asked again about a builder that has a free slot as far as
	// the scheduler knows: somebody builds there without asking that.
	maxAsks = 5
	// maxHeld bounds the messages that are held back, in bytes.
	maxHeld = 1 << 20
	// maxErrors bounds the errors that are looked at to find the one that counts.
	maxErrors = 100
)

// finish ends the child before its time.
func (a *attempt) finish(c *child, why ending) {
	if a.end.some() {
		return
	}
	a.end = why
	if err := kill(c.id); err != nil {
		a.h.out.say(levelWarn, "warning: end the build of '%s': %v", a.h.request.derivation, err)
	}
}

// line handles a line of the child. If it answers the request, it returns the answer.
func (a *attempt) line(c *child, l line) (answer string) {
	text := bytes.TrimSuffix(l.text, []byte("\n"))
	switch {
	case a.stage == asked && bytes.HasPrefix(text, []byte("# ")):
		answer = string(text[2:])
		if answer == "accept" {
			a.stage = accepted
			var w writer
			w.words(a.h.inputs)
			w.words(a.h.outputs)
			c.input <- w.Bytes()
			close(c.input)
		}
		return answer
	case a.stage == accepted:
		a.stage, a.uri = building, bytes.TrimSpace(text)
		if a.machine == "" {
			a.machine = string(a.uri)
		}
		a.clock.start(a.h.limits, a.uri)
		return ""
	}
	if l.part {
		a.clock.sign()
		a.h.out.relay(l.text)
		return ""
	}
	m, ok := parseMessage(text)
	switch {
	case !ok:
		a.h.out.relay(l.text)
	case m.Action == "msg" && a.holds(m):
		if a.held = append(a.held, a.rename(l.text)...); len(a.held) > maxHeld {
			a.flush()
		}
		if m.Level == levelError {
			// The last ones count.
			a.errors = append(a.errors[max(0, len(a.errors)-maxErrors+1):], plain(string(a.rename([]byte(m.Msg)))))
		}
	case m.Action == "result":
		if m.fromBuild() {
			a.clock.sign()
		}
		a.h.out.relay(l.text)
	default:
		a.follows(m)
		a.h.out.relay(m.unlogged(a.rename(l.text)))
	}
	return ""
}

// holds tells whether a message is for the user only if nobody tries again: all errors, and
// warnings of a hook that has not accepted, which are about why it does not.
func (a *attempt) holds(m message) bool {
	return m.Level == levelError || m.Level <= levelWarn && a.stage != building
}

// follows keeps in mind which activities there are.
func (a *attempt) follows(m message) {
	switch m.Action {
	case "start":
		a.open[m.ID] = true
	case "stop":
		delete(a.open, m.ID)
	default:
		return
	}
	a.clock.activity(m)
}

// rename puts the builder's name in place of its store, whose URI tells a user nothing.
func (a *attempt) rename(text []byte) []byte {
	if len(a.uri) == 0 || string(a.uri) == a.machine {
		return text
	}
	text = bytes.ReplaceAll(text, a.uri, []byte(a.machine))
	// Where paths are copied to, Nix says less of it: ssh-ng://localhost, or ssh-ng:// alone.
	if m := origin.FindSubmatch(a.uri); m != nil {
		quoted := []byte("'" + a.machine + "'")
		for _, short := range m {
			text = bytes.ReplaceAll(text, []byte("'"+string(short)+"'"), quoted)
		}
	}
	return text
}

// origin is the beginning of a URI without path and query, and its scheme.
var origin = regexp.MustCompile(`^([a-z-]+://)[^/?]*`)

// flush shows what was held back.
func (a *attempt) flush() {
	a.h.out.relay(a.held)
	a.held = nil
}

// cause is the text of the error that has ended the child.
func (a *attempt) cause() string {
	for _, text := range slices.Backward(a.errors) {
		if strings.HasPrefix(strings.TrimSpace(text), "error:") {
			return text
		}
	}
	if len(a.errors) > 0 {
		return a.errors[len(a.errors)-1]
	}
	return ""
}
