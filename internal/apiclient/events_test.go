package apiclient_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// Streams of events as a coordinator would seldom or never give them.
func TestHistory(t *testing.T) {
	event := func(number string) string {
		return "id: " + number + "\nevent: builder.lost\ndata: {\"number\": " + number + ", \"type\": \"builder.lost\"}\n\n"
	}
	for _, test := range []struct {
		name, stream string
		want         int
		err          string
	}{
		{"just the events", ": events follow\n\n" + event("1") + event("2"), 2, ""},
		{"more than was asked for", event("1") + event("2") + event("3"), 2, ""},
		{"a stream that ends early", event("1"), 1, ""},
		{"what has been forgotten", "event: snapshot\ndata: {\"id\": \"c\"}\n\n" + event("2"), 0, ""},
		{"nothing", "", 0, ""},
		{"not JSON", "event: x\ndata: {\n\n", 0, "understand the answer"},
		{"a line without end", "data: " + strings.Repeat("x", 17<<20), 0, "too long"},
	} {
		t.Run(test.name, func(t *testing.T) {
			api := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if got := r.Header.Get("Last-Event-ID"); got != "0" {
					t.Errorf("it asks for the events after %q", got)
				}
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = io.WriteString(w, test.stream)
			})
			events, err := api.History(t.Context(), 2)
			if len(events) != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("%d events, %v; want %d, %q", len(events), err, test.want, test.err)
			}
		})
	}
	api := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	if _, err := api.History(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "502") {
		t.Errorf("no coordinator: %v", err)
	}
}
