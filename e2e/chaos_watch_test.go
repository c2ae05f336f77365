package e2e_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// A watch reads, at all times, what the coordinator tells of its cluster and what it tells
// Nix, and holds the two against each other.
type watch struct {
	host  *testbed.Host
	base  string // of the API
	names []string
	wrong func(format string, args ...any)

	mu     sync.Mutex
	last   int64                             // number of the last event; guarded by mu
	state  map[string]apiclient.BuilderState // by builder; guarded by mu
	since  map[string]time.Time              // when we heard of that; guarded by mu
	phase  apiclient.Phase                   // guarded by mu
	events []apiclient.Event                 // guarded by mu
	killed bool                              // the server, since the last event; guarded by mu
}

func newWatch(h *testbed.Host, base string, names []string, wrong func(string, ...any)) *watch {
	w := &watch{host: h, base: base, names: names, wrong: wrong, phase: apiclient.PhaseGathering,
		state: map[string]apiclient.BuilderState{}, since: map[string]time.Time{}}
	for _, n := range names {
		w.state[n] = apiclient.BuilderStateExpected
	}
	return w
}

// follow reads the event stream until ctx ends, from where it was after each break.
func (w *watch) follow(ctx context.Context) {
	for ctx.Err() == nil {
		w.mu.Lock()
		last := w.last
		w.mu.Unlock()
		cmd := w.host.CommandAs(ctx, testbed.Runner, "curl", "-sS", "--fail-with-body", "--no-buffer",
			"--connect-timeout", "2", "-H", fmt.Sprint("Last-Event-ID: ", last), w.base+"/events")
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			if ctx.Err() == nil {
				w.wrong("follow the events: %v", err)
			}
			return
		}
		s := &stream{cmd, bufio.NewReader(out)}
		for {
			e, err := s.next() // waits for curl
			if err != nil {
				break
			}
			w.heard(e)
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// heard checks an event against those before it.
func (w *watch) heard(e event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.kind == "snapshot" {
		var c apiclient.Cluster
		if err := json.Unmarshal([]byte(e.data), &c); err != nil {
			w.wrong("a snapshot that is none: %v: %s", err, e.data)
			return
		}
		// A server that is killed between saving an event and telling it.
		if !w.killed || c.Event < w.last {
			w.wrong("after event %d comes a snapshot of event %d, and the server was not killed", w.last, c.Event)
		}
		w.last, w.phase = c.Event, c.Phase
		for _, b := range c.Builders {
			w.state[b.Name], w.since[b.Name] = b.State, time.Now()
		}
		return
	}
	var ev apiclient.Event
	if err := json.Unmarshal([]byte(e.data), &ev); err != nil {
		w.wrong("an event that is none: %v: %s", err, e.data)
		return
	}
	if ev.Number != w.last+1 || e.id != fmt.Sprint(ev.Number) || e.kind != string(ev.Type) {
		w.wrong("event %s (%s) comes after %d: %s", e.id, e.kind, w.last, e.data)
	}
	w.last, w.killed = ev.Number, false
	w.events = append(w.events, ev)
	switch {
	case ev.From == nil || ev.To == nil:
		w.wrong("an event without a state before or after: %s", e.data)
	case ev.Builder == nil:
		if apiclient.Phase(*ev.From) != w.phase {
			w.wrong("the cluster was %s: %s", w.phase, e.data)
		}
		w.phase = apiclient.Phase(*ev.To)
	default:
		if was := w.state[*ev.Builder]; apiclient.BuilderState(*ev.From) != was {
			w.wrong("%s was %s: %s", *ev.Builder, was, e.data)
		}
		w.state[*ev.Builder], w.since[*ev.Builder] = apiclient.BuilderState(*ev.To), time.Now()
	}
}

// serverKilled says that an event may have been saved that nobody was told.
func (w *watch) serverKilled() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.killed = true
}

// after returns the events since the one with this number, and the number of the last.
func (w *watch) after(number int64) ([]apiclient.Event, int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.IndexFunc(w.events, func(e apiclient.Event) bool { return e.Number > number })
	if i < 0 {
		return nil, w.last
	}
	return slices.Clone(w.events[i:]), w.last
}

// agrees says how the events differ from the cluster as the API shows it; empty if the API
// is at another event.
func (w *watch) agrees(c apiclient.Cluster) (same bool, diff string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.Event != w.last {
		return false, ""
	}
	for _, b := range c.Builders {
		if w.state[b.Name] != b.State {
			diff += fmt.Sprintf("%s is %s and the events say %s; ", b.Name, b.State, w.state[b.Name])
		}
	}
	if c.Phase != w.phase {
		diff += fmt.Sprintf("the cluster is %s and the events say %s", c.Phase, w.phase)
	}
	return true, diff
}

// told is how long a builder that Nix must not use may stand in the machines file after
// the event that says so.
const told = 3 * time.Second

// machines reads the machines file, as often as it can, until ctx ends.
func (w *watch) machines(ctx context.Context) {
	for tick := time.NewTicker(10 * time.Millisecond); ctx.Err() == nil; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		names, err := w.named()
		if err != nil {
			w.wrong("the machines file: %v", err)
			return
		}
		w.mu.Lock()
		for _, name := range names {
			switch s, d := w.state[name], time.Since(w.since[name]); s {
			case apiclient.BuilderStateReady, apiclient.BuilderStateJoined: // which is about to be ready
			default:
				if d > told {
					w.wrong("the machines file names %s, which is %s for %v", name, s, d)
				}
			}
		}
		w.mu.Unlock()
	}
}

// machineLine is a machine that is reached directly, or one over SSH, with its host key.
var machineLine = regexp.MustCompile(`^ssh-ng://(?:localhost\?remote-program=/run/nix-builders/\S+/nix-builders%20dial-store%20[0-9.]+:8379%20\.%20|root@)([a-z0-9.-]+)(?:\?remote-program=/usr/bin/nix-daemon)? x86_64-linux,i686-linux - [1-9][0-9]* [1-9][0-9]* (?:-|[a-z0-9,-]+) -( [A-Za-z0-9+/=]+)?$`)

// named returns whom the machines file names, and what is wrong with it.
func (w *watch) named() (names []string, err error) {
	read := func(name string) (string, error) {
		text, err := os.ReadFile(filepath.Join(w.host.Disk(), name))
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return string(text), err
	}
	text, err := read("etc/nix/machines")
	if err != nil || text == "" {
		return nil, err
	}
	if !strings.HasSuffix(text, "\n") {
		return nil, fmt.Errorf("it ends amid a line:\n%s", text)
	}
	depth := 0
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "# BEGIN "):
			depth++
		case strings.HasPrefix(line, "# END "):
			depth--
		default:
			m := machineLine.FindStringSubmatch(line)
			if m == nil || depth != 1 {
				return nil, fmt.Errorf("the line %q in:\n%s", line, text)
			}
			key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(m[2]))
			keyed := strings.Contains(string(key), " ")
			if err != nil || keyed != strings.Contains(line, "://root@") || !slices.Contains(w.names, m[1]) || slices.Contains(names, m[1]) {
				return nil, fmt.Errorf("the name or the key of %q in:\n%s", line, text)
			}
			names = append(names, m[1])
		}
	}
	if depth != 0 {
		return nil, fmt.Errorf("its marks don't match:\n%s", text)
	}
	// It names nobody whom ssh does not know. Read in this order: who goes, goes here first.
	config, err := read("root/.ssh/config")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if !strings.Contains(config, name) {
			if again, err := read("etc/nix/machines"); err != nil || again == text {
				return nil, fmt.Errorf("it names %s, which ssh does not know:\n%s\n%s", name, text, config)
			}
			return w.named()
		}
	}
	return names, nil
}
