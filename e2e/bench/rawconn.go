package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// A rawBuilder is a builder that says what it must on one connection and does nothing
// else: thousands of them leave the machine to the server that is measured.
type rawBuilder struct {
	of    crowd
	index int
	host  string // of the coordinator, ADDRESS:PORT
	conn  net.Conn
	in    *bufio.Reader
	id    uuid.UUID // from checkIn on
}

func (c crowd) raw(i int, base string) (*rawBuilder, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	return &rawBuilder{of: c, index: i, host: u.Host}, nil
}

func (r *rawBuilder) close() {
	if r.conn != nil {
		_ = r.conn.Close()
	}
}

// checkIn connects and checks in.
func (r *rawBuilder) checkIn(ctx context.Context) (err error) {
	if r.conn, err = r.of.dial(ctx, r.index, r.host); err != nil {
		return err
	}
	r.in = bufio.NewReaderSize(r.conn, 1024)
	body, err := json.Marshal(r.of.checkIn(r.index))
	if err != nil {
		return err
	}
	var t apiclient.Ticket
	if err := r.call(ctx, "POST", "/v1/check-ins", body, http.StatusCreated, &t); err != nil {
		return err
	}
	r.id = t.Id
	return nil
}

// await polls for the teardown until it comes.
func (r *rawBuilder) await(ctx context.Context) error {
	var t apiclient.Teardown
	return r.call(ctx, "GET", fmt.Sprintf("/v1/builders/%s/teardown?wait=300", r.id), nil, http.StatusOK, &t)
}

func (r *rawBuilder) depart(ctx context.Context) error {
	path := fmt.Sprintf("/v1/builders/%s/departure", r.id)
	return r.call(ctx, "POST", path, []byte(`{"reason":"teardown"}`), http.StatusNoContent, nil)
}

func (r *rawBuilder) call(ctx context.Context, method, path string, body []byte, want int, v any) error {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(5 * time.Minute)
	}
	if err := r.conn.SetDeadline(deadline); err != nil {
		return err
	}
	req := fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, path, r.host)
	if body != nil {
		req = fmt.Appendf(req, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	req = append(append(req, "\r\n"...), body...)
	if _, err := r.conn.Write(req); err != nil {
		return err
	}
	res, err := http.ReadResponse(r.in, nil)
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != want {
		return fmt.Errorf("%s %s: %s: %s", method, path, res.Status, answer)
	}
	if v == nil {
		return nil
	}
	return json.Unmarshal(answer, v)
}
