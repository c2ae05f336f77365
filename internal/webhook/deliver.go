package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/go-json-experiment/json"
	"github.com/google/uuid"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/wire"
)

const (
	firstPause = 500 * time.Millisecond
	maxPause   = time.Minute // also the most that a receiver's Retry-After can ask for

	// maxAnswer is how much of an answer is read, so that its connection can be used again.
	maxAnswer = 64 << 10
)

// outcome is what became of an event or of a try, as metrics name it.
type outcome string

const (
	delivered outcome = "delivered"
	repeated  outcome = "repeated" // a try failed and another follows
	failed    outcome = "failed"   // all tries did
	dropped   outcome = "dropped"  // never tried, or not to the end
)

func (s *Sender) count(o outcome, n int) { s.deliveries.WithLabelValues(string(o)).Add(float64(n)) }

// deliver sends e until the receiver takes it, the tries are used up or ctx ends.
func (s *Sender) deliver(ctx context.Context, e coordinator.Event) {
	body, err := json.Marshal(apiclient.WebhookPayload{
		Type: apiclient.EventType(e.Type), Timestamp: e.At, Data: wire.Event(e),
	})
	if err != nil {
		s.count(failed, 1)
		s.log.Error("send an event", "event", e.Number, "type", e.Type, "error", err)
		return
	}
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval, pauses.Multiplier = firstPause, maxPause, 2.5
	_, err = backoff.Retry(ctx, func() (struct{}, error) {
		return struct{}{}, s.try(ctx, messageID(e), body)
	},
		backoff.WithBackOff(pauses),
		backoff.WithMaxTries(uint(s.tries)),
		backoff.WithMaxElapsedTime(0), // the tries bound it
		backoff.WithNotify(func(err error, pause time.Duration) {
			s.count(repeated, 1)
			s.log.Debug("send an event again", "event", e.Number, "in", pause, "error", err)
		}))
	switch {
	case err == nil:
		s.count(delivered, 1)
	case ctx.Err() != nil:
		s.count(dropped, 1)
		s.log.Warn("give an event up", "event", e.Number, "type", e.Type, "error", context.Cause(ctx))
	default:
		s.count(failed, 1)
		s.log.Warn("give an event up", "event", e.Number, "type", e.Type, "tries", s.tries, "error", err)
	}
}

// messageID is the same at every try of e and unlike that of any other event.
func messageID(e coordinator.Event) string {
	name := fmt.Sprintf("%s\n%d\n%d", e.Cluster, e.Number, e.At.UnixNano())
	return "evt_" + uuid.NewSHA1(uuid.NameSpaceOID, []byte(name)).String()
}

// try sends body once.
func (s *Sender) try(ctx context.Context, id string, body []byte) error {
	now := time.Now()
	signature, err := s.signer.Sign(id, now, body)
	if err != nil {
		return backoff.Permanent(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return backoff.Permanent(errors.New("the URL can't be requested"))
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "nix-builders")
	req.Header.Set(standardwebhooks.HeaderWebhookID, id)
	req.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	req.Header.Set(standardwebhooks.HeaderWebhookSignature, signature)

	res, err := s.client.Do(req)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err // without the URL, which may hold a credential
		}
		return err
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, maxAnswer) // what a receiver says does not matter
	if res.StatusCode >= 200 && res.StatusCode < 300 {
		return nil
	}
	err = fmt.Errorf("the receiver answers %s", res.Status)
	if pause, ok := retryAfter(res.Header.Get("Retry-After"), now); ok {
		return errors.Join(err, &backoff.RetryAfterError{Duration: pause})
	}
	return err
}

// retryAfter reads a Retry-After header, seconds or a date, and bounds it.
func retryAfter(text string, now time.Time) (time.Duration, bool) {
	var pause time.Duration
	if seconds, err := strconv.ParseInt(text, 10, 32); err == nil {
		pause = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		pause = at.Sub(now)
	} else {
		return 0, false
	}
	return min(max(pause, firstPause), maxPause), true
}
