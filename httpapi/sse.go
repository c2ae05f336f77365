package httpapi

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/wire"
)

// streamBuffer is how many events a stream's reader may lag behind, beyond what the
// connection itself holds.
const streamBuffer = 64

func (s *Server) streamEvents(w http.ResponseWriter, r *http.Request) error {
	if err := plainCall(w, r); err != nil {
		return err
	}
	after := int64(-1)
	switch last := r.Header.Values("Last-Event-ID"); {
	case len(last) == 1:
		var err error
		if after, err = integer(last[0], "Last-Event-ID", 0, math.MaxInt64); err != nil {
			return err
		}
	case len(last) > 1:
		return repeated("Last-Event-ID")
	}
	leave, err := s.nodes.stream(callerOf(r))
	if err != nil {
		return err
	}
	defer leave()

	w.Header().Set("Content-Type", "text/event-stream")
	if r.Method == http.MethodHead {
		return nil
	}
	defer s.metrics.opened("events")()
	sub := s.cluster.Subscribe(after, streamBuffer)
	defer sub.Close()
	quiet(r)
	if err := s.stream(w, r, sub); err != nil {
		// The answer has begun: all that is left is to end it and say why in the log.
		s.log.LogAttrs(r.Context(), slog.LevelInfo, "end an event stream",
			slog.String("caller", callerOf(r).String()), slog.Any("error", err))
	}
	return nil
}

// stream writes what sub brings until it ends, the reader goes away or the server ends.
// The error is one that the operator may want to know of.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, sub *coordinator.Subscription) error {
	out := eventWriter{w, http.NewResponseController(w), s.limits.Write}
	if err := out.write(": events follow\n\n"); err != nil {
		return nil
	}
	if view, ok := sub.Snapshot(); ok {
		if err := out.event(view.Event, "snapshot", wire.Cluster(view)); err != nil {
			return err
		}
	}
	alive := time.NewTicker(s.limits.Alive)
	defer alive.Stop()
	for {
		var err error
		select {
		case e, more := <-sub.C():
			if !more {
				return sub.Err()
			}
			err = out.event(e.Number, string(e.Type), wire.Event(e))
		case <-alive.C:
			err = out.write(": still here\n\n")
		case <-r.Context().Done():
			return nil
		}
		switch {
		case r.Context().Err() != nil:
			return nil
		case err != nil:
			return err
		}
	}
}

// eventWriter writes Server-Sent Events, each within a time.
type eventWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	within  time.Duration
}

func (o eventWriter) event(id int64, kind string, data any) error {
	body, err := json.Marshal(data) // one line: JSON escapes line ends
	if err != nil {
		return err
	}
	return o.write(fmt.Sprintf("id: %d\nevent: %s\ndata: %s\n\n", id, kind, body))
}

func (o eventWriter) write(text string) error {
	if err := o.control.SetWriteDeadline(time.Now().Add(o.within)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := o.w.Write([]byte(text)); err != nil {
		return err
	}
	return o.control.Flush()
}
