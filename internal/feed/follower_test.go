package feed_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/feed"
)

// numbered is a store path of its own, and its hash part.
func numbered(n int) (path, hash string) {
	hash = fmt.Sprintf("%032d", n)
	return "/nix/store/" + hash + "-p", hash
}

func peer(name string) feed.Peer {
	return feed.Peer{Name: name, Node: "n-" + name, Addr: netip.MustParseAddrPort("100.64.0.1:8379")}
}

// A script is what a coordinator answers, question by question; then it has no news.
type script struct {
	pages []any // feed.Page or error
	asked []time.Duration
	begin time.Time
	after int64
}

func (s *script) fetch(ctx context.Context, after int64, wait time.Duration) (feed.Page, error) {
	s.asked, s.after = append(s.asked, time.Since(s.begin)), after
	if len(s.pages) == 0 {
		select {
		case <-time.After(wait):
			return feed.Page{Cursor: after}, nil
		case <-ctx.Done():
			return feed.Page{}, ctx.Err()
		}
	}
	next := s.pages[0]
	s.pages = s.pages[1:]
	if err, ok := next.(error); ok {
		return feed.Page{}, err
	}
	return next.(feed.Page), nil
}

// follow runs a follower until end is called.
func follow(t *testing.T, s *script) (f *feed.Follower, end func()) {
	t.Helper()
	s.begin = time.Now()
	f = feed.NewFollower(feed.FollowerConfig{Fetch: s.fetch, Self: "n-b1"})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { f.Run(ctx); close(ended) }()
	return f, func() { cancel(); <-ended }
}

func names(peers []feed.Peer) []string {
	var all []string
	for _, p := range peers {
		all = append(all, p.Name)
	}
	slices.Sort(all)
	return all
}

func TestFollower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p1, h1 := numbered(1)
		p2, h2 := numbered(2)
		s := &script{pages: []any{
			feed.Page{Cursor: 5, Peers: []feed.Peer{peer("b1"), peer("b2"), peer("b3")}, Paths: []feed.Path{
				{Path: p1, Holders: []string{"b1", "b2", "b3", "gone"}}, {Path: "/nix/store/nonsense"}, {Path: "../../etc/passwd"},
			}},
			feed.Page{Cursor: 6, Peers: []feed.Peer{peer("b1"), peer("b3")}, Paths: []feed.Path{{Path: p2, Holders: []string{"b1"}}}},
		}}
		f, end := follow(t, s)
		heard, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if p, ok := f.Await(heard, h2); !ok || p.Path != p2 {
			t.Fatalf("awaited %q, %v", p.Path, ok)
		}
		if p, peers, ok := f.Lookup(h1); !ok || p.Path != p1 || !cmp.Equal(names(peers), []string{"b3"}) {
			t.Errorf("%q is with %v, want b3 alone: neither who left nor this builder", p.Path, names(peers))
		}
		if _, peers, ok := f.Lookup(h2); !ok || len(peers) > 0 {
			t.Errorf("what this builder alone has is with %v", names(peers))
		}
		if !f.IsPeer("n-b3") || f.IsPeer("n-b2") || f.IsPeer("n-b1") || f.IsPeer("") {
			t.Error("the peers are not b3 alone")
		}
		brief, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, ok := f.Await(brief, "00000000000000000000000000000009"); ok {
			t.Error("a path that nobody told of came")
		}
		end()
		if _, ok := f.Known(h1); ok || f.IsPeer("n-b3") {
			t.Error("it knows something after its end")
		}
	})
}

// A coordinator that fails, answers at once with nothing, or is another than before, is
// asked again, and not too often.
func TestFollowerGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p1, h1 := numbered(1)
		p2, h2 := numbered(2)
		s := &script{pages: []any{
			errors.New("down"), errors.New("down"),
			feed.Page{Cursor: 900, Paths: []feed.Path{{Path: p1}}},
			feed.Page{Cursor: 900},
			feed.Page{Cursor: 3},
			feed.Page{Cursor: 4, Paths: []feed.Path{{Path: p2}}},
		}}
		f, end := follow(t, s)
		defer end()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if _, ok := f.Known(h1); ok {
			t.Error("it knows what only the last server had")
		}
		if _, ok := f.Known(h2); !ok || s.after != 4 {
			t.Errorf("it does not know what this server has; it asks after %d", s.after)
		}
		if len(s.asked) != 7 {
			t.Fatalf("it asked at %v", s.asked)
		}
		// Pauses after errors grow, with half as much by chance; one after nothing is a second.
		for i, want := range map[int]time.Duration{0: 200 * time.Millisecond, 1: 300 * time.Millisecond, 3: time.Second} {
			if pause := s.asked[i+1] - s.asked[i]; pause < want/2 || pause > want*3/2 {
				t.Errorf("question %d came %v after the one before, want about %v", i+2, pause, want)
			}
		}
	})
}

// What there is no room for is not known; the rest is.
func TestFollowerIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pages []any
		const each = 250
		for n := range 401 {
			page := feed.Page{Cursor: int64(n + 1)}
			for i := range each {
				p, _ := numbered(n*each + i)
				page.Paths = append(page.Paths, feed.Path{Path: p})
			}
			pages = append(pages, page)
		}
		s := &script{pages: pages}
		f, end := follow(t, s)
		defer end()
		time.Sleep(time.Second)
		synctest.Wait()
		if at := s.asked[401]; at > 0 {
			t.Errorf("full pages are fetched within %v, want at once", at)
		}
		_, first := numbered(0)
		_, last := numbered(401*each - 1)
		if _, ok := f.Known(first); !ok {
			t.Error("the first path is not known")
		}
		_, fits := numbered(99_999)
		if _, ok := f.Known(fits); !ok {
			t.Error("it has no room for 100,000")
		}
		if _, ok := f.Known(last); ok {
			t.Error("it knows more than it has room for")
		}
	})
}
