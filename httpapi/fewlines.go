package httpapi

import (
	"context"
	"log/slog"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// linesAhead is how many seconds' worth of lines may come at once.
const linesAhead = 10

// fewHandler leaves out what is over a rate, so that callers can't fill the disk with lines
// about themselves. The next line that is written says how many were left out before it.
// Debug lines all pass: who asks for them looks for something.
type fewHandler struct {
	slog.Handler
	*lineRate
}

// lineRate is shared by all handlers that are made of one.
type lineRate struct {
	limit   *rate.Limiter
	leftOut atomic.Int64
}

func fewLines(h slog.Handler, perSecond int) slog.Handler {
	return fewHandler{h, &lineRate{limit: rate.NewLimiter(rate.Limit(perSecond), perSecond*linesAhead)}}
}

func (h fewHandler) Handle(ctx context.Context, rec slog.Record) error {
	if rec.Level >= slog.LevelInfo {
		if !h.limit.Allow() {
			h.leftOut.Add(1)
			return nil
		}
		if n := h.leftOut.Swap(0); n > 0 {
			rec = rec.Clone()
			rec.AddAttrs(slog.Int64("left_out_before", n))
		}
	}
	return h.Handler.Handle(ctx, rec)
}

func (h fewHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return fewHandler{h.Handler.WithAttrs(attrs), h.lineRate}
}

func (h fewHandler) WithGroup(name string) slog.Handler {
	return fewHandler{h.Handler.WithGroup(name), h.lineRate}
}
