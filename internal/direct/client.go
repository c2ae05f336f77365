package direct

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
)

// A Dial connects to an address of the tailnet, HOST:PORT.
type Dial func(ctx context.Context, network, addr string) (net.Conn, error)

// connectTime bounds the connecting to a builder, and its answer.
const connectTime = 8 * time.Second

const (
	// maxHead bounds what is read of an answer, a byte at a time.
	maxHead = 4 << 10
	// maxReport bounds what is read of a report: [maxKilled] events are half of it.
	maxReport = 128 << 10
)

// ErrRefused is wrapped by the errors of builders that answer, and serve us nothing.
var ErrRefused = errors.New("the builder refuses")

// Connect opens a connection to the store of the builder at addr: what is written to it
// from now on, a process there reads that serves the store.
func Connect(ctx context.Context, dial Dial, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTime, fmt.Errorf("no answer within %v: %w", connectTime, context.DeadlineExceeded))
	defer cancel()
	conn, err := dial(ctx, "tcp", addr)
	if err == nil {
		if err = askUpgrade(ctx, conn, addr); err == nil {
			return conn, nil
		}
		conn.Close()
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return nil, fmt.Errorf("connect to the builder at %s: %w", addr, err)
}

func askUpgrade(ctx context.Context, conn net.Conn, addr string) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	req := "GET " + storePath + " HTTP/1.1\r\nHost: " + addr + "\r\nConnection: Upgrade\r\nUpgrade: " + upgrade + "\r\n\r\n"
	if _, err := io.WriteString(conn, req); err != nil {
		return err
	}
	// Read no further than the answer's head: who takes the connection over wants the rest.
	r := bufio.NewReaderSize(io.LimitReader(oneByte{conn}, maxHead), 16)
	res, err := http.ReadResponse(r, nil)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it ended the connection")
	}
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusSwitchingProtocols || !strings.EqualFold(res.Header.Get("Upgrade"), upgrade) {
		return refused(res)
	}
	if !stop() { // it ended just now, and took the connection along
		return context.Cause(ctx)
	}
	return nil
}

// oneByte reads a byte at a time.
type oneByte struct{ io.Reader }

func (r oneByte) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(len(p), 1)]) }

// refused says what a builder had against a request.
func refused(res *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(res.Body, 512))
	line, _, _ := strings.Cut(strings.TrimSpace(strings.ToValidUTF8(string(text), "?")), "\n")
	return fmt.Errorf("%w: %s (%.300q)", ErrRefused, res.Status, line)
}

// Condition asks the builder at addr what befell its host since a time.
func Condition(ctx context.Context, dial Dial, addr string, since time.Time) (scheduler.Condition, error) {
	c, err := askCondition(ctx, dial, addr, since)
	if err != nil {
		return scheduler.Condition{}, fmt.Errorf("ask the builder at %s what befell it: %w", addr, err)
	}
	return c, nil
}

func askCondition(ctx context.Context, dial Dial, addr string, since time.Time) (scheduler.Condition, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	// The question is on its way for so long at most.
	age := max(time.Since(since), 0).Milliseconds() + connectTime.Milliseconds()
	at := url.URL{Scheme: "http", Host: addr, Path: conditionsPath, RawQuery: ageParam + "=" + strconv.FormatInt(age, 10)}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return scheduler.Condition{}, err
	}
	client := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true, DisableCompression: true}}
	res, err := client.Do(req)
	if err != nil {
		return scheduler.Condition{}, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return scheduler.Condition{}, refused(res)
	}
	var answer report
	if err := json.NewDecoder(io.LimitReader(res.Body, maxReport)).Decode(&answer); err != nil {
		return scheduler.Condition{}, fmt.Errorf("read its answer: %w", err)
	}
	return answer.since(time.Since(since)), nil
}
