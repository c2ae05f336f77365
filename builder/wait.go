package builder

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff is a series of pauses that grow from min to max.
type backoff struct {
	min, max time.Duration
	next     time.Duration // zero: min
}

// wait waits for the next pause, half of it by chance: many builders wait for one
// coordinator. The error is why ctx ended.
func (b *backoff) wait(ctx context.Context) error {
	b.next = min(max(b.next, b.min), b.max)
	pause := b.next/2 + rand.N(b.next/2+1)
	b.next *= 2
	return sleep(ctx, pause)
}

// sleep waits for d, or returns why ctx ended.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// promise is a value that is being made.
type promise[T any] struct {
	done  chan struct{} // closed when value and err are set
	value T
	err   error
}

// later begins to make a value.
func later[T any](do func() (T, error)) *promise[T] {
	p := &promise[T]{done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.value, p.err = do()
	}()
	return p
}

func (p *promise[T]) wait(ctx context.Context) (T, error) {
	select {
	case <-p.done:
		return p.value, p.err
	case <-ctx.Done():
		var zero T
		return zero, context.Cause(ctx)
	}
}

// failed reports whether it is over and there is no value.
func (p *promise[T]) failed() bool {
	select {
	case <-p.done:
		return p.err != nil
	default:
		return false
	}
}
