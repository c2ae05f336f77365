package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"net"
	"net/http"
	"time"
)

const (
	// mostConns is how many connections are open at a time, many more than one node may have.
	mostConns = 2_000
	// mostRaw bounds the connections of one flood.
	mostRaw = 20_000
	// drop is how long to wait between the bytes of something slow.
	drop = 500 * time.Millisecond
)

// connections opens connections and says nothing on them.
func connections(ctx context.Context, f *flood) {
	crowd(ctx, mostConns, mostRaw, func(ctx context.Context, _ int) {
		f.raw(ctx, func(net.Conn) {})
	})
}

// slowHeads sends the head of a request byte by byte.
func slowHeads(ctx context.Context, f *flood) {
	crowd(ctx, mostConns, mostRaw, func(ctx context.Context, _ int) {
		f.raw(ctx, func(conn net.Conn) { drip(ctx, conn, f.head("GET /v1/cluster")) })
	})
}

// slowBodies sends the body of a check-in byte by byte.
func slowBodies(ctx context.Context, f *flood) {
	crowd(ctx, workers, mostRaw, func(ctx context.Context, _ int) {
		f.raw(ctx, func(conn net.Conn) {
			_, _ = conn.Write(f.head("POST /v1/check-ins", "Content-Type: application/json", "Content-Length: 1000"))
			drip(ctx, conn, bytes.Repeat([]byte(" "), 1000))
		})
	})
}

// halfRequests hangs up in the middle of a request.
func halfRequests(ctx context.Context, f *flood) {
	crowd(ctx, workers, mostRaw, func(ctx context.Context, worker int) {
		f.raw(ctx, func(conn net.Conn) {
			head := f.head("POST /v1/check-ins", "Content-Type: application/json", "Content-Length: 1000")
			_, _ = conn.Write(head[:len(head)-worker])
			conn.Close()
		})
	})
}

// hugeHeads sends more head than anybody has a use for.
func hugeHeads(ctx context.Context, f *flood) {
	line := "X-Huge: " + string(bytes.Repeat([]byte("x"), 1<<20))
	crowd(ctx, workers, mostRaw, func(ctx context.Context, _ int) {
		f.raw(ctx, func(conn net.Conn) { _, _ = conn.Write(f.head("GET /v1/cluster", line)) })
	})
}

// garbage sends what is no HTTP.
func garbage(ctx context.Context, f *flood) {
	crowd(ctx, workers, mostRaw, func(ctx context.Context, _ int) {
		f.raw(ctx, func(conn net.Conn) {
			bytes := make([]byte, 4096)
			_, _ = rand.Read(bytes)
			_, _ = conn.Write(bytes)
		})
	})
}

// head is that of a request.
func (f *flood) head(call string, lines ...string) []byte {
	text := call + " HTTP/1.1\r\nHost: " + f.at + "\r\n"
	for _, l := range lines {
		text += l + "\r\n"
	}
	return []byte(text + "\r\n")
}

// raw opens a connection, lets say do its worst and waits for the end or an answer.
func (f *flood) raw(ctx context.Context, say func(net.Conn)) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", f.at)
	if err != nil {
		if ctx.Err() == nil {
			f.came(0)
		}
		return
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	say(conn)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		f.came(0)
		return
	}
	res.Body.Close()
	f.came(res.StatusCode)
}

// drip writes byte by byte until the other end has had enough.
func drip(ctx context.Context, conn net.Conn, text []byte) {
	pause := time.NewTicker(drop)
	defer pause.Stop()
	for i := range text {
		if _, err := conn.Write(text[i : i+1]); err != nil {
			return
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
	}
}
