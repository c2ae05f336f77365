package httpapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/httpapi"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

// message is one of a stream, as the format has it.
type message struct{ ID, Event, Data string }

// stream is an open event stream.
type stream struct {
	t     *testing.T
	res   *http.Response
	lines *bufio.Scanner
	close context.CancelFunc
}

// open opens an event stream from the node at addr, after the event that last names unless
// it is empty.
func (w *world) open(t *testing.T, addr netip.Addr, last string) *stream {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	res, err := w.http(addr).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = res.Body.Close() })
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	return &stream{t, res, lines, cancel}
}

// next returns the next message; false says that the stream has ended. Comments are passed
// over.
func (s *stream) next() (m message, ok bool) {
	for s.lines.Scan() {
		switch name, value, _ := strings.Cut(s.lines.Text(), ": "); {
		case s.lines.Text() == "" && m != message{}:
			s.check(m)
			return m, true
		case name == "id":
			m.ID = value
		case name == "event":
			m.Event = value
		case name == "data":
			m.Data = value
		}
	}
	return message{}, false
}

// check holds a message to the contract.
func (s *stream) check(m message) {
	s.t.Helper()
	doc, err := loadContract()
	if err != nil {
		s.t.Fatal(err)
	}
	name := "Event"
	if m.Event == "snapshot" {
		name = "Cluster"
	}
	var data any
	err = json.Unmarshal([]byte(m.Data), &data)
	if err == nil {
		err = doc.Components.Schemas[name].Value.VisitJSON(data)
	}
	if err != nil {
		s.t.Errorf("message %s is not as the contract has it: %v", m.ID, err)
	}
}

// rest returns what comes until the stream ends, as "number event builder".
func (s *stream) rest(t *testing.T) (all []string) {
	t.Helper()
	for {
		m, ok := s.next()
		if !ok {
			return all
		}
		var e apiclient.Event
		if err := json.Unmarshal([]byte(m.Data), &e); err != nil {
			t.Errorf("data of %s: %v", m.ID, err)
		}
		if m.Event != "snapshot" && (strconv.FormatInt(e.Number, 10) != m.ID || string(e.Type) != m.Event || e.Cluster != clusterID) {
			t.Errorf("message %+v", m)
		}
		line := m.ID + " " + m.Event
		if e.Builder != nil {
			line += " " + *e.Builder
		}
		all = append(all, line)
	}
}

func TestStreamFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.join(builder1)
		s := w.open(t, reader.Addr, "")
		if kind := s.res.Header.Get("Content-Type"); kind != "text/event-stream" {
			t.Errorf("content type %q", kind)
		}
		m, _ := s.next()
		var cluster apiclient.Cluster
		if err := json.Unmarshal([]byte(m.Data), &cluster); err != nil || m.Event != "snapshot" || m.ID != "1" {
			t.Fatalf("it begins with %+v, %v", m, err)
		}
		if cluster.Event != 1 || len(cluster.Builders) != 3 || cluster.Builders[0].State != apiclient.BuilderStateJoined {
			t.Errorf("snapshot: %+v", cluster)
		}
		w.join(builder2)
		if _, err := w.cluster.Stop(t.Context(), stopNow); err == nil {
			t.Error("the stop did not wait for b1")
		}
		want := []string{"2 builder.joined b2", "3 cluster.stopping"}
		if diff := cmp.Diff(want, s.rest(t)); diff != "" {
			t.Errorf("the rest of the stream (-want +got):\n%s", diff)
		}
	})
}

func TestStreamGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.join(builder1)
		w.join(builder2)
		w.join(builder3)
		first := w.open(t, reader.Addr, "1")
		if m, _ := first.next(); m.ID != "2" {
			t.Errorf("after event 1 comes %+v", m)
		}
		first.close()
		second := w.open(t, reader.Addr, "2")
		future := w.open(t, reader.Addr, "999")
		_, _ = w.cluster.Stop(t.Context(), stopNow)
		if diff := cmp.Diff([]string{"3 builder.joined b3", "4 cluster.stopping"}, second.rest(t)); diff != "" {
			t.Errorf("after event 2 (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"3 snapshot", "4 cluster.stopping"}, future.rest(t)); diff != "" {
			t.Errorf("after an event that never was (-want +got):\n%s", diff)
		}
		// Streams of a stopped cluster say what there is and end.
		if diff := cmp.Diff([]string{"4 cluster.stopping"}, w.open(t, reader.Addr, "3").rest(t)); diff != "" {
			t.Errorf("after event 3, later (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"4 snapshot"}, w.open(t, reader.Addr, "").rest(t)); diff != "" {
			t.Errorf("from the start, later (-want +got):\n%s", diff)
		}
	})
}

func TestBadLastEventID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, last := range [][]string{{"x"}, {"-1"}, {"1.0"}, {"9223372036854775808"}, {""}, {"1", "1"}} {
			req, _ := http.NewRequestWithContext(badly(t.Context()), http.MethodGet, base+"/events", nil)
			req.Header["Last-Event-Id"] = last
			if p := problemIn(w.send(t, reader.Addr, req)); p.Slug != problem.Malformed || p.Field != "Last-Event-ID" {
				t.Errorf("Last-Event-ID %q: %s at %q", last, p.Slug, p.Field)
			}
		}
	})
}

func TestStreamsPerNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var open []*stream
		for range 4 {
			open = append(open, w.open(t, reader.Addr, ""))
		}
		fifth := w.open(t, reader.Addr, "")
		if p := problemIn(fifth.res); p.Slug != problem.TooManyStreams {
			t.Errorf("the fifth stream: %s", fifth.res.Status)
		}
		if s := w.open(t, other.Addr, ""); s.res.StatusCode != http.StatusOK {
			t.Errorf("another node's stream: %s", s.res.Status)
		}
		open[0].close()
		synctest.Wait()
		if s := w.open(t, reader.Addr, ""); s.res.StatusCode != http.StatusOK {
			t.Errorf("after one was closed: %s", s.res.Status)
		}
	})
}

func TestStreamShowsThatItLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := w.open(t, reader.Addr, "")
		s.next()
		start := time.Now()
		for i := range 3 {
			for s.lines.Scan() && !strings.HasPrefix(s.lines.Text(), ":") {
			}
			within(t, "a sign of life", time.Since(start), time.Duration(i+1)*15*time.Second)
		}
	})
}

// A reader who does not read is cut off, and the cluster does not notice.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(cfg *httpapi.Config) { cfg.Limits.Write = 10 * time.Second })
		conn, err := w.net.Dial(t.Context(), reader.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET /v1/events HTTP/1.1\r\nHost: nix-coordinator\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // its answer is on its way and nobody takes it
		start := time.Now()
		in := checkIn("b1")
		for range 200 {
			in.Instance = uuid.New()
			if _, _, err := w.api(builder1).CheckIn(t.Context(), in); err != nil {
				t.Fatal(err)
			}
		}
		within(t, "200 events with a slow reader", time.Since(start), 0)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if body, _ := w.get(t, "/metrics"); !strings.Contains(body, `nix_builders_waiting_requests{for="events"} 0`) {
			t.Error("the stream is still open")
		}
		if _, err := io.ReadAll(conn); err != nil {
			t.Errorf("its connection: %v", err)
		}
	})
}

// A reader who keeps up but for a while gets all there is before it is cut off.
func TestReaderThatLagsResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := w.open(t, reader.Addr, "")
		in := checkIn("b1")
		for range 200 {
			in.Instance = uuid.New()
			if _, _, err := w.api(builder1).CheckIn(t.Context(), in); err != nil {
				t.Fatal(err)
			}
		}
		got := s.rest(t)
		last, _, _ := strings.Cut(got[len(got)-1], " ")
		resumed := w.open(t, reader.Addr, last)
		_, _ = w.cluster.Stop(t.Context(), stopNow)
		all := append(got[1:], resumed.rest(t)...)
		for i, line := range all {
			if !strings.HasPrefix(line, fmt.Sprintf("%d ", i+1)) {
				t.Fatalf("event %d is %q", i+1, line)
			}
		}
		if len(all) < 201 {
			t.Errorf("got %d events, want 201 or more", len(all))
		}
	})
}
