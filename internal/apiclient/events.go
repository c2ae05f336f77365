package apiclient

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// History returns the events of the cluster that are still kept, oldest first, up to the
// one with the number last, as [Cluster] names its last. Of a coordinator that has
// forgotten some it returns none.
func (a *API) History(ctx context.Context, last int64) ([]Event, error) {
	if last <= 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	events, err := a.history(ctx, last)
	if err != nil {
		return nil, fmt.Errorf("read the events of %s: %w", a.base, err)
	}
	return events, nil
}

func (a *API) history(ctx context.Context, last int64) ([]Event, error) {
	res, err := a.gen.StreamEvents(ctx, &StreamEventsParams{LastEventID: new(int64(0))})
	if err != nil || res.StatusCode != http.StatusOK {
		_, err := a.answer(res, err, nil)
		if err == nil {
			err = fmt.Errorf("status %d", res.StatusCode)
		}
		return nil, err
	}
	defer res.Body.Close()
	var events []Event
	snapshot := false
	lines := bufio.NewScanner(io.LimitReader(res.Body, maxAnswer))
	lines.Buffer(nil, maxAnswer)
	for lines.Scan() {
		line := lines.Text()
		if kind, ok := strings.CutPrefix(line, "event: "); ok {
			snapshot = kind == "snapshot"
		}
		data, ok := strings.CutPrefix(line, "data: ")
		switch {
		case !ok:
			continue
		case snapshot:
			return nil, nil
		}
		var e Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return nil, fmt.Errorf("understand the answer: %w", err)
		}
		events = append(events, e)
		if e.Number >= last {
			return events, nil // the stream itself goes on until the cluster stops
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	// A stream that ended sooner is of a cluster that is stopping: that is all there is.
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return events, nil
}
