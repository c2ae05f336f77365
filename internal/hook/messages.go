package hook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
)

// Levels of Nix' messages, as many as are used here.
const (
	levelError     = 0
	levelWarn      = 1
	levelInfo      = 3
	levelTalkative = 4
	levelChatty    = 5
	levelDebug     = 6
)

// Types of Nix' results: those that come from the build itself.
const (
	resultLogLine  = 101
	resultSetPhase = 104
)

// activityTransfer is the type of the activity of fetching a file. It has the number of
// resultLogLine, and Nix does not tell one from the other when it writes a build's log.
const activityTransfer = 101

// messagePrefix begins each line that is a message in JSON.
const messagePrefix = "@nix "

// A message is what Nix' own hook tells of what it does, as far as that matters here.
type message struct {
	Action string `json:"action"`
	ID     uint64 `json:"id"`
	Level  int    `json:"level"`
	Type   int    `json:"type"`
	Text   string `json:"text"` // of a start
	Msg    string `json:"msg"`  // of a msg
}

// Beginnings and ends of results as Nix writes them. Build logs are nearly all that hooks
// relay, and are not taken apart.
var (
	resultBegin = []byte(messagePrefix + `{"action":"result",`)
	logLineEnd  = fmt.Appendf(nil, `"type":%d}`, resultLogLine)
	transferEnd = fmt.Appendf(nil, `"type":%d}`+"\n", activityTransfer)
	unknownEnd  = []byte(`"type":0}` + "\n")
	setPhaseEnd = fmt.Appendf(nil, `"type":%d}`, resultSetPhase)
)

// parseMessage reads a line without its end; false if it is no message.
func parseMessage(line []byte) (m message, ok bool) {
	if bytes.HasPrefix(line, resultBegin) {
		m.Action = "result"
		switch {
		case bytes.HasSuffix(line, logLineEnd):
			m.Type = resultLogLine
			return m, true
		case bytes.HasSuffix(line, setPhaseEnd):
			m.Type = resultSetPhase
			return m, true
		}
	}
	text, is := bytes.CutPrefix(line, []byte(messagePrefix))
	if !is || json.Unmarshal(text, &m) != nil {
		return message{}, false
	}
	return m, true
}

// unlogged is the line of a message that Nix keeps out of the build's log. Else there would
// stand in it from where a builder fetched its inputs, which differs from build to build.
func (m message) unlogged(line []byte) []byte {
	text, ends := bytes.CutSuffix(line, transferEnd)
	if m.Action != "start" || m.Type != activityTransfer || !ends {
		return line
	}
	return slices.Concat(text, unknownEnd)
}

// fromBuild tells a sign of life of the build itself.
func (m message) fromBuild() bool {
	return m.Action == "result" && (m.Type == resultLogLine || m.Type == resultSetPhase)
}

var escapes = regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]")

// plain is a message's text without colours.
func plain(text string) string { return escapes.ReplaceAllString(text, "") }

// A reporter writes to Nix: answers first, messages later. One goroutine at a time has it.
type reporter struct {
	w         io.Writer
	verbosity int
	inLine    bool // the last line that was relayed has not ended yet
}

// answer replies to a request.
func (r *reporter) answer(word string) { r.write("# " + word + "\n") }

// say tells the user, if the level is one that he wants to see.
func (r *reporter) say(level int, format string, args ...any) {
	if level > r.verbosity {
		return
	}
	text, err := json.Marshal(map[string]any{"action": "msg", "level": level, "msg": fmt.Sprintf(format, args...)})
	if err != nil {
		return // a string can always be written
	}
	r.write(messagePrefix + string(text) + "\n")
}

// stop ends an activity that somebody has left open.
func (r *reporter) stop(id uint64) {
	r.write(fmt.Sprintf(messagePrefix+`{"action":"stop","id":%d}`+"\n", id))
}

// relay passes on what another hook has written, a line or a part of one.
func (r *reporter) relay(text []byte) {
	if len(text) == 0 {
		return
	}
	_, _ = r.w.Write(text) // who does not read any more will end us
	r.inLine = text[len(text)-1] != '\n'
}

func (r *reporter) write(line string) {
	if r.inLine {
		line = "\n" + line
	}
	r.inLine = false
	_, _ = io.WriteString(r.w, line) // as in relay
}
