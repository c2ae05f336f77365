// Feeder plays a builder's part in sharing paths, good or bad, for tests without a cluster.
// What a coordinator would tell it is a feed.Page, which it reads from its standard input.
//
//	feeder give HOW ADDR   give paths of this host's store at ADDR
//	feeder take KEY        be a cache for this host's Nix
//
// It prints a line when it is there: take prints the cache's URL. HOW is one of honest, lying
// (a byte is another), half (of each path, and the end), silent (after that half) and mute
// (from the beginning).
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/nix-community/go-nix/pkg/nar"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/feed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nixstore"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var page feed.Page
	if err := json.NewDecoder(os.Stdin).Decode(&page); err != nil {
		return fmt.Errorf("read the page: %w", err)
	}
	f := &feeder{log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	f.follower = feed.NewFollower(feed.FollowerConfig{Fetch: f.fetch(page), Log: f.log})
	go f.follower.Run(ctx)
	for _, p := range page.Paths {
		f.follower.Await(ctx, hash(p.Path))
	}
	switch {
	case len(args) == 3 && args[0] == "give":
		return f.give(args[1], args[2])
	case len(args) == 2 && args[0] == "take":
		return f.take(ctx, args[1])
	}
	return fmt.Errorf("want give HOW ADDR, or take KEY, not %q", args)
}

// hash is the digest in a store path.
func hash(path string) string { return strings.TrimPrefix(path, "/nix/store/")[:32] }

type feeder struct {
	log      *slog.Logger
	follower *feed.Follower
}

// fetch answers with one page, and then that there is no other.
func (f *feeder) fetch(page feed.Page) func(context.Context, int64, time.Duration) (feed.Page, error) {
	return func(ctx context.Context, after int64, wait time.Duration) (feed.Page, error) {
		if after < page.Cursor {
			return page, nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		return feed.Page{Cursor: page.Cursor, Peers: page.Peers}, ctx.Err()
	}
}

func (f *feeder) give(how, addr string) error {
	server := feed.NewServer(feed.ServerConfig{Follower: f.follower, Valid: new(nixstore.Store).Valid, Log: f.log})
	handlers := map[string]http.Handler{
		"honest": server,
		"lying":  f.bad(func(n int64) int64 { return n }, func(*http.Request) {}),
		"half":   f.bad(func(n int64) int64 { return n / 2 }, func(*http.Request) { panic(http.ErrAbortHandler) }),
		"silent": f.bad(func(n int64) int64 { return n / 2 }, stall),
		"mute":   f.bad(func(int64) int64 { return 0 }, stall),
	}
	if handlers[how] == nil {
		return fmt.Errorf("nobody gives paths in the way %q", how)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Println("giving")
	mux := http.NewServeMux()
	mux.Handle("/nar/", handlers[how])
	return http.Serve(l, mux)
}

// stall waits for the other end to go.
func stall(r *http.Request) { <-r.Context().Done() }

// bad gives a part of a path, with a wrong byte in the middle of it, and then does what then says.
func (f *feeder) bad(part func(size int64) int64, then func(*http.Request)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := f.follower.Known(strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/nar/"), ".nar"))
		w.Header().Set("Content-Length", strconv.FormatInt(p.NarSize, 10))
		var whole bytes.Buffer
		if err := nar.DumpPath(&whole, p.Path); err != nil {
			panic(err)
		}
		sent := whole.Bytes()[:part(p.NarSize)]
		if len(sent) > 0 {
			sent[len(sent)/2] ^= 1
		}
		_, _ = w.Write(sent)
		_ = http.NewResponseController(w).Flush()
		then(r)
	})
}

func (f *feeder) take(ctx context.Context, key string) error {
	p, err := feed.NewProxy(feed.ProxyConfig{Follower: f.follower, Transport: &http.Transport{}, Log: f.log})
	if err != nil {
		return err
	}
	_, url, _ := strings.Cut(p.Conf(key), "extra-substituters = ")
	url, _, _ = strings.Cut(url, "\n")
	fmt.Println(url)
	return p.Serve(ctx)
}
