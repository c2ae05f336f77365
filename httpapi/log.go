package httpapi

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"

	"github.com/go-chi/chi/v5/middleware"
	"github.com/go-chi/httplog/v2"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

// logRequests gives each request an id and, when it ends, a line in the log. The logger is
// put together here because httplog.NewLogger would write to its own handler.
func (s *Server) logRequests(next http.Handler) http.Handler {
	logged := httplog.Handler(&httplog.Logger{
		Logger:  s.log,
		Options: httplog.Options{Concise: true, JSON: true}, // JSON: panics go to the log, not to stderr
	})(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Callers don't choose the id: it leads from an answer to the log.
		ctx := context.WithValue(r.Context(), middleware.RequestIDKey, rand.Text()[:12])
		logged.ServeHTTP(w, r.WithContext(ctx))
	})
}

// recoverPanics makes a problem of a handler's panic.
func (s *Server) recoverPanics(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if v == http.ErrAbortHandler {
				panic(v)
			}
			if entry := logEntry(r); entry != nil {
				entry.Panic(v, debug.Stack())
			}
			if ww, ok := w.(middleware.WrapResponseWriter); ok && ww.Status() != 0 {
				panic(http.ErrAbortHandler) // too late for a problem: let the caller see a broken answer
			}
			s.render(w, r, fmt.Errorf("panic: %v", v))
		}()
		next.ServeHTTP(w, r)
	})
}

func logEntry(r *http.Request) *httplog.RequestLoggerEntry {
	entry, _ := middleware.GetLogEntry(r).(*httplog.RequestLoggerEntry)
	return entry
}

// noteCaller adds who called to the request's line.
func noteCaller(r *http.Request, c Caller) {
	httplog.LogEntrySetField(r.Context(), "caller", slog.StringValue(c.String()))
}

// noteProblem adds what went wrong to the request's line.
func noteProblem(r *http.Request, p apiclient.Problem) {
	attrs := []slog.Attr{slog.String("type", string(problem.FromURI(p.Type)))}
	if p.Detail != nil {
		attrs = append(attrs, slog.String("detail", *p.Detail))
	}
	if p.Field != nil {
		attrs = append(attrs, slog.String("field", *p.Field))
	}
	httplog.LogEntrySetField(r.Context(), "problem", slog.GroupValue(attrs...))
}

// quiet makes the request's line a debug line, for what ends as it should and either comes
// over and over (polls, readings, scrapes) or is an event that has a line of its own.
func quiet(r *http.Request) {
	if entry := logEntry(r); entry != nil {
		entry.Logger = slog.New(quietHandler{entry.Logger.Handler()})
	}
}

// quietHandler takes every record for a debug record.
type quietHandler struct{ slog.Handler }

func (h quietHandler) Enabled(ctx context.Context, _ slog.Level) bool {
	return h.Handler.Enabled(ctx, slog.LevelDebug)
}

func (h quietHandler) Handle(ctx context.Context, rec slog.Record) error {
	rec.Level = slog.LevelDebug
	return h.Handler.Handle(ctx, rec)
}

func (h quietHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return quietHandler{h.Handler.WithAttrs(attrs)}
}

func (h quietHandler) WithGroup(name string) slog.Handler {
	return quietHandler{h.Handler.WithGroup(name)}
}
