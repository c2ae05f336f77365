package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// lines notes when which host printed what. It takes whole lines, "HOST | TEXT", as a
// fleet writes them. Its zero value is ready.
type lines struct {
	mu      sync.Mutex
	all     []line        // guarded by mu
	changed chan struct{} // closed and replaced by each line; guarded by mu; nil: nobody waits
}

type line struct {
	at         time.Time
	host, text string
}

func (l *lines) Write(b []byte) (int, error) {
	host, text, _ := strings.Cut(string(b), "|")
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, line{time.Now(), strings.TrimSpace(host), strings.TrimSpace(text)})
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
	return len(b), nil
}

// await returns the first line of the host that holds the words, as soon as there is one.
func (l *lines) await(ctx context.Context, host, words string) (line, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for seen := 0; ; {
		l.mu.Lock()
		fresh := l.all[seen:]
		seen = len(l.all)
		if l.changed == nil {
			l.changed = make(chan struct{})
		}
		changed := l.changed
		l.mu.Unlock()
		for _, one := range fresh {
			if one.host == host && strings.Contains(one.text, words) {
				return one, nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return line{}, fmt.Errorf("%s did not print %q: %w", host, words, context.Cause(ctx))
		}
	}
}

// stamp is the time that a line of slog's text form has.
func (l line) stamp() (time.Time, error) {
	_, rest, _ := strings.Cut(l.text, "time=")
	text, _, _ := strings.Cut(rest, " ")
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return t, fmt.Errorf("%s: %q: %w", l.host, l.text, err)
	}
	return t, nil
}

// String is all lines, for a person who wonders what took so long.
func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	for _, one := range l.all {
		fmt.Fprintf(&b, "%s %-12s %s\n", one.at.UTC().Format("15:04:05.000"), one.host, one.text)
	}
	return b.String()
}
