package feed_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nix-community/go-nix/pkg/narinfo"
	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/feed"
)

const narHash = "sha256:0lxjvvpr59c2mdram7ympy5ay741f180kv3349hvfc3f8nrmbqf6"

// storePath is a path of this name, which is valid but for its hash part's meaning.
func storePath(name string) string {
	return "/nix/store/" + fmt.Sprintf("%032s", strings.Repeat("0", 32))[:32] + "-" + name
}

func newKey(t *testing.T) signature.SecretKey {
	t.Helper()
	key, err := feed.LoadKey(filepath.Join(t.TempDir(), "key"), "run-1")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newIndex runs an index over a store that has every path but those named "invalid".
func newIndex(t *testing.T, key signature.SecretKey, change ...func(*feed.IndexConfig)) *feed.Index {
	t.Helper()
	cfg := feed.IndexConfig{
		Key: key,
		Info: func(_ context.Context, p string) (feed.Path, error) {
			if strings.HasSuffix(p, "-invalid") {
				return feed.Path{}, errors.New("not valid")
			}
			return feed.Path{Path: p, NarHash: narHash, NarSize: 7, References: []string{storePath("z"), storePath("a")}}, nil
		},
		Outputs: func(_ context.Context, drv string) ([]string, error) {
			return []string{strings.TrimSuffix(drv, ".drv") + "-out"}, nil
		},
	}
	for _, c := range change {
		c(&cfg)
	}
	x := feed.NewIndex(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { x.Run(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	return x
}

// holders are the holders of each path of a page, by the path's name.
func holders(p feed.Page) map[string]string {
	all := map[string]string{}
	for _, one := range p.Paths {
		_, name, _ := strings.Cut(one.Path, "-")
		all[name] = strings.Join(one.Holders, " ")
	}
	return all
}

func TestIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := newKey(t)
		x := newIndex(t, key)
		if p := x.Page(t.Context(), 0, time.Minute); len(p.Paths) != 0 || p.Cursor != 0 {
			t.Errorf("an empty index has %+v", p)
		}
		x.Built(feed.Built{Machine: "b1", Derivation: storePath("d.drv"), Inputs: []string{storePath("in"), storePath("invalid")}})
		synctest.Wait()
		first := x.Page(t.Context(), 0, 0)
		if diff := cmp.Diff(map[string]string{"d-out": "b1", "in": "b1"}, holders(first)); diff != "" {
			t.Errorf("after a build (-want +got):\n%s", diff)
		}
		for _, p := range first.Paths {
			verify(t, key.ToPublicKey(), p)
		}

		// Who waits hears of what is new, and of nothing else.
		heard := make(chan feed.Page)
		go func() { heard <- x.Page(t.Context(), first.Cursor, time.Hour) }()
		synctest.Wait()
		x.Built(feed.Built{Machine: "b2", Outputs: []string{storePath("out")}, Inputs: []string{storePath("in")}})
		page := <-heard
		for len(page.Paths) < 2 { // they come one by one
			next := x.Page(t.Context(), page.Cursor, time.Hour)
			page.Cursor, page.Paths = next.Cursor, append(page.Paths, next.Paths...)
		}
		if diff := cmp.Diff(map[string]string{"out": "b2", "in": "b1 b2"}, holders(page)); diff != "" {
			t.Errorf("after another (-want +got):\n%s", diff)
		}
		// The same again is no news.
		x.Built(feed.Built{Machine: "b2", Outputs: []string{storePath("out")}, Inputs: []string{storePath("in")}})
		synctest.Wait()
		if p := x.Page(t.Context(), page.Cursor, time.Minute); len(p.Paths) != 0 {
			t.Errorf("the same build again: %+v", p)
		}
		// An index that begins later has nothing that an older cursor hides.
		time.Sleep(time.Second)
		later := newIndex(t, key)
		later.Built(feed.Built{Machine: "b3", Outputs: []string{storePath("x")}})
		synctest.Wait()
		if diff := cmp.Diff(map[string]string{"x": "b3"}, holders(later.Page(t.Context(), page.Cursor, 0))); diff != "" {
			t.Errorf("of the next server's index (-want +got):\n%s", diff)
		}
	})
}

// Whoever wants to know is told how large paths are, and what a derivation has made.
func TestSizes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := map[string][]int64{}
		x := newIndex(t, newKey(t), func(c *feed.IndexConfig) {
			c.Sized = func(path string, bytes int64) { told[path] = append(told[path], bytes) }
		})
		for _, machine := range []string{"b1", "b2"} {
			x.Built(feed.Built{Machine: machine, Derivation: storePath("d.drv"), Inputs: []string{storePath("in"), storePath("invalid")}})
		}
		x.Built(feed.Built{
			Machine: "b1", Derivation: storePath("two.drv"),
			Outputs: []string{storePath("out"), storePath("dev"), storePath("invalid")},
		})
		synctest.Wait()
		want := map[string][]int64{
			storePath("d-out"): {7}, storePath("in"): {7}, storePath("d.drv"): {7, 7},
			storePath("out"): {7}, storePath("dev"): {7}, storePath("two.drv"): {14},
		}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("sizes (-want +got):\n%s", diff)
		}
	})
}

// verify checks a signature as Nix does.
func verify(t *testing.T, key signature.PublicKey, p feed.Path) {
	t.Helper()
	text := fmt.Sprintf("StorePath: %s\nURL: nar/x.nar\nCompression: none\nNarHash: %s\nNarSize: %d\nReferences: %s\nSig: %s\n",
		p.Path, p.NarHash, p.NarSize, strings.Join([]string{filepath.Base(storePath("a")), filepath.Base(storePath("z"))}, " "), p.Signature)
	info, err := narinfo.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	if !signature.VerifyFirst(info.Fingerprint(), info.Signatures, []signature.PublicKey{key}) {
		t.Errorf("the signature of %s is wrong: %s", p.Path, p.Signature)
	}
}

// Pages are bounded, and together they are the whole, in whatever order things changed.
func TestPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newIndex(t, newKey(t))
		const paths = 600
		for round := range 8 {
			for n := range paths {
				if n%3 <= round {
					x.Built(feed.Built{Machine: fmt.Sprint("b", round), Outputs: []string{storePath(fmt.Sprint("p", n))}})
				}
			}
			synctest.Wait()
		}
		got := map[string]string{}
		pages := 0
		for after := int64(0); ; pages++ {
			p := x.Page(t.Context(), after, 0)
			if len(p.Paths) == 0 {
				break
			}
			if len(p.Paths) > 250 || p.Cursor <= after {
				t.Fatalf("a page of %d paths, after %d to %d", len(p.Paths), after, p.Cursor)
			}
			for name, who := range holders(p) {
				if _, twice := got[name]; twice {
					t.Errorf("%s comes twice", name)
				}
				got[name] = who
			}
			after = p.Cursor
		}
		if len(got) != paths || pages < 3 {
			t.Errorf("%d paths on %d pages, want %d", len(got), pages, paths)
		}
		if got["p2"] != "b2 b3 b4 b5 b6 b7" {
			t.Errorf("p2 is held by %s", got["p2"])
		}
	})
}

func TestKeyStays(t *testing.T) {
	file := filepath.Join(t.TempDir(), "paths.key")
	first, err := feed.LoadKey(file, "run-1")
	if err != nil {
		t.Fatal(err)
	}
	again, err := feed.LoadKey(file, "other")
	if err != nil || !slices.Equal([]byte(first.String()), []byte(again.String())) {
		t.Errorf("the second time the key is another (%v)", err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file: %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(file, []byte("run-1:c2VjcmV0"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := feed.LoadKey(file, "run-1"); err == nil || strings.Contains(err.Error(), "c2VjcmV0") {
		t.Errorf("a broken key: %v", err)
	}
}
