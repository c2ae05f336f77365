package feed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	// partSize is how much of a NAR is passed on at a time, at most.
	partSize = 256 << 10
	// leastPart has to come within the time for which a peer may stall: one that drips would
	// keep a build waiting for hours.
	leastPart = 64 << 10
)

var (
	errLacks = errors.New("it does not have the path")
	errSlow  = errors.New("nothing came for too long")
)

// A fetch is a NAR that comes from a peer.
type fetch struct {
	peer  Peer
	size  int64
	stall time.Duration

	ctx    context.Context // of the request
	cancel context.CancelCauseFunc
	body   io.ReadCloser
	alarm  *time.Timer // ends the fetch; runs only while the peer is waited for
	part   []byte      // that came last, and was not passed on yet
	got    int64       // bytes, with those of part
}

// fetch asks a peer for a path, and returns when the first of it has come.
func (p *Proxy) fetch(ctx context.Context, peer Peer, hash string, size int64) (_ *fetch, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	f := &fetch{peer: peer, size: size, stall: p.cfg.Stall, ctx: ctx, cancel: cancel}
	f.alarm = time.AfterFunc(p.cfg.First, func() { cancel(errSlow) })
	defer func() {
		if err != nil {
			err = f.why(err)
			f.close()
		}
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+peer.Addr.String()+narPrefix+hash+narSuffix, nil)
	if err != nil {
		return nil, err
	}
	res, err := p.cfg.Transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	f.body = res.Body
	switch {
	case res.StatusCode == http.StatusNotFound:
		return nil, errLacks
	case res.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("it answers %d", res.StatusCode)
	case res.ContentLength != size:
		return nil, fmt.Errorf("it says that the path has %d bytes, the coordinator that it has %d", res.ContentLength, size)
	}
	f.part = make([]byte, partSize)
	return f, f.read(1)
}

// read waits for so much more, at least.
func (f *fetch) read(least int64) error {
	n, err := io.ReadAtLeast(f.body, f.part[:cap(f.part)], int(min(least, f.size-f.got)))
	f.alarm.Stop()
	f.part = f.part[:n]
	f.got += int64(n)
	return err
}

// why is what really ended the fetch.
func (f *fetch) why(err error) error {
	switch {
	case context.Cause(f.ctx) == errSlow:
		return errSlow
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("it ended after %d of %d bytes", f.got, f.size)
	}
	return err
}

// passTo writes all of the NAR. How long that takes is not counted against the peer.
func (f *fetch) passTo(w io.Writer) error {
	for {
		if _, err := w.Write(f.part); err != nil {
			return &takerError{err}
		}
		if f.got >= f.size {
			return nil
		}
		f.alarm.Reset(f.stall)
		if err := f.read(leastPart); err != nil {
			return f.why(err)
		}
	}
}

// close gives up what has not come yet.
func (f *fetch) close() {
	f.alarm.Stop()
	f.cancel(context.Canceled)
	if f.body != nil {
		f.body.Close()
	}
}

// A takerError is that of who takes what a peer gives, and none of the peer's.
type takerError struct{ err error }

func (e *takerError) Error() string { return "pass it on to Nix: " + e.err.Error() }
func (e *takerError) Unwrap() error { return e.err }
