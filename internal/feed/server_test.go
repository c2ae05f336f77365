package feed_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nix-community/go-nix/pkg/nar"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/feed"
)

// patience bounds what a test waits for.
const patience = 20 * time.Second

// put makes a path in a store, a directory with a file of this size, and returns it as the
// index would have it.
func put(t *testing.T, store string, n, size int) feed.Path {
	t.Helper()
	name, _ := numbered(n)
	dir := filepath.Join(store, filepath.Base(name))
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin", "data"), bytes.Repeat([]byte{byte(n)}, size), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("bin/data", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	return feed.Path{Path: name, NarHash: narHash, NarSize: int64(len(dump(t, dir)))}
}

func dump(t *testing.T, path string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := nar.DumpPath(&b, path); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// knowing is a follower that has heard of these.
func knowing(t *testing.T, peers []feed.Peer, paths ...feed.Path) *feed.Follower {
	t.Helper()
	told := make(chan feed.Page, 1)
	told <- feed.Page{Cursor: 1, Peers: peers, Paths: paths}
	f := feed.NewFollower(feed.FollowerConfig{
		Self: "n-self",
		Fetch: func(ctx context.Context, after int64, _ time.Duration) (feed.Page, error) {
			select {
			case p := <-told:
				return p, nil
			case <-ctx.Done():
				return feed.Page{}, ctx.Err()
			}
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { f.Run(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	heard, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	for _, p := range paths {
		if _, ok := f.Await(heard, filepath.Base(p.Path)[:32]); !ok {
			t.Fatalf("the follower does not hear of %s", p.Path)
		}
	}
	return f
}

// always says of every path that it is valid.
func always(context.Context, string) (bool, error) { return true, nil }

func get(t *testing.T, url string) (status int, body []byte, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	body, err = io.ReadAll(res.Body)
	return res.StatusCode, body, err
}

func TestServer(t *testing.T) {
	store := t.TempDir()
	small, big := put(t, store, 1, 10), put(t, store, 2, 3<<20)
	half, unsure, gone, grown, secret := put(t, store, 3, 10), put(t, store, 4, 10), put(t, store, 5, 10), put(t, store, 6, 10), put(t, store, 7, 10)
	if err := os.RemoveAll(filepath.Join(store, filepath.Base(gone.Path))); err != nil {
		t.Fatal(err)
	}
	grown.NarSize -= 8
	s := feed.NewServer(feed.ServerConfig{
		Follower: knowing(t, nil, small, big, half, unsure, gone, grown),
		StoreDir: store,
		Valid: func(_ context.Context, path string) (bool, error) {
			switch path {
			case half.Path:
				return false, nil
			case unsure.Path:
				return false, errors.New("the daemon is down")
			}
			return true, nil
		},
	})
	web := httptest.NewServer(s)
	defer web.Close()
	hash := func(p feed.Path) string { return filepath.Base(p.Path)[:32] }

	var sent int64
	for _, p := range []feed.Path{small, big, small} {
		status, got, err := get(t, web.URL+"/nar/"+hash(p)+".nar")
		if want := dump(t, filepath.Join(store, filepath.Base(p.Path))); err != nil || status != http.StatusOK || !bytes.Equal(got, want) {
			t.Errorf("%s: %d, %v, %d bytes, want %d", p.Path, status, err, len(got), len(want))
		}
		sent += p.NarSize
	}
	if got := s.Given(); got.Paths != 3 || got.Bytes != sent {
		t.Errorf("it counts %+v, want 3 paths and %d bytes", got, sent)
	}
	for path, want := range map[string]int{
		"/nar/" + hash(half) + ".nar":   http.StatusNotFound,
		"/nar/" + hash(unsure) + ".nar": http.StatusNotFound,
		"/nar/" + hash(secret) + ".nar": http.StatusNotFound, // in the store, and nothing of the cluster's
		"/nar/" + hash(small):           http.StatusNotFound,
		"/nar/..%2f..%2fetc%2fpasswd":   http.StatusNotFound,
		"/nar/" + small.Path + ".nar":   http.StatusNotFound,
		"/" + hash(small) + ".narinfo":  http.StatusNotFound,
	} {
		if status, body, err := get(t, web.URL+path); err != nil || status != want {
			t.Errorf("%s: %d %q, %v, want %d", path, status, body, err, want)
		}
	}
	// What is not as the index has it never looks whole.
	for name, p := range map[string]feed.Path{"gone": gone, "grown": grown} {
		if status, body, err := get(t, web.URL+"/nar/"+hash(p)+".nar"); err == nil && status == http.StatusOK {
			t.Errorf("what is %s comes as %d bytes without an error", name, len(body))
		}
	}
	res, err := http.Post(web.URL+"/nar/"+hash(small)+".nar", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %s", res.Status)
	}
}

// Peers that take nothing hold up no others for ever, and not all of the server.
func TestServerIsBounded(t *testing.T) {
	store := t.TempDir()
	p := put(t, store, 1, 32<<20) // more than sockets hold
	s := feed.NewServer(feed.ServerConfig{Follower: knowing(t, nil, p), StoreDir: store, Valid: always})
	web := httptest.NewServer(s)
	defer web.Close()
	url := web.URL + "/nar/" + filepath.Base(p.Path)[:32] + ".nar"
	for range 64 {
		conn, err := net.Dial("tcp", web.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", url)
		if _, err := io.ReadFull(conn, make([]byte, 12)); err != nil { // it has begun
			t.Fatal(err)
		}
	}
	if status, _, err := get(t, url); err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("one more: %d, %v, want 503", status, err)
	}
}
