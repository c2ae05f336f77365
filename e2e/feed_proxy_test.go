package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/image"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/feed"
)

// feedTime bounds what Nix does with peers of any kind: what the proxy waits for, and that
// Nix asks five times for what did not begin.
const feedTime = 45 * time.Second

// TestFeeding has one host's Nix take paths from peers that are on another, and may be gone,
// hang or lie: by itself, and as a builder whose coordinator copies what it does not get.
func TestFeeding(t *testing.T) {
	for _, suite := range []string{image.Trixie, image.Sid} {
		t.Run(suite, func(t *testing.T) {
			t.Parallel() // it mostly waits
			f := newFed(t, startLab(t, testbed.Config{Suite: suite, Builders: 1, Programs: []string{"./e2e/feeder"}}))
			for _, s := range []struct {
				peers []string // how they give
				takes bool     // Nix gets the path from them, if it asks often enough
				says  string
			}{
				{peers: []string{"honest"}, takes: true},
				{peers: []string{"honest", "gone", "unheard", "mute"}, takes: true},
				{peers: []string{"honest", "half", "silent"}, takes: true},
				{peers: []string{"gone"}, says: "does not exist in binary cache"},
				{peers: []string{"unheard"}, says: "does not exist in binary cache"},
				{peers: []string{"mute"}, says: "does not exist in binary cache"},
				{peers: []string{"half"}, says: "unable to download"},
				{peers: []string{"silent"}, says: "unable to download"},
				{peers: []string{"lying"}, says: "hash mismatch"},
			} {
				t.Run(strings.Join(s.peers, ","), func(t *testing.T) { f.tell(t, s.peers, s.takes, s.says) })
			}
			t.Run("signed by another", f.signedByAnother)
		})
	}
}

// fed are two hosts: a giver, on which peers are, and a taker. The taker has a second store,
// which stands for its coordinator's.
type fed struct {
	giver, taker *testbed.Host
	key          signature.SecretKey
	port         uint16 // of the last peer
	needs        string // a path
	closure      []feed.Path
}

const coordinatorsStore = "local?root=/root/coordinator"

func newFed(t *testing.T, lab *testbed.Lab) *fed {
	t.Helper()
	c := newCluster(t, lab, "feed", 0)
	if err := c.InstallExpressions(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	key, _, err := signature.GenerateKeypair("run-1", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := &fed{giver: lab.Host(testbed.Coordinator), taker: lab.Host(testbed.Builder(1)), key: key, port: 9000}
	f.needs = output(t, f.giver, testbed.Root, "nix-build", "--no-out-link", "/opt/nix/fed.nix", "--argstr", "tag", uniqueTag())
	paths := strings.Fields(output(t, f.giver, testbed.Root, "nix-store", "--query", "--requisites", f.needs))
	f.closure = f.index(t, paths)

	exported := bytes.Buffer{}
	export := f.giver.Command(within(t, patience), append([]string{"nix-store", "--export"}, paths...)...)
	export.Stdout = &exported
	if err := export.Run(); err != nil {
		t.Fatal(err)
	}
	imports := f.taker.Command(within(t, patience), "nix-store", "--store", coordinatorsStore, "--option", "require-sigs", "false", "--import")
	imports.Stdin = &exported
	if _, err := testbed.Output(imports); err != nil {
		t.Fatal(err)
	}
	return f
}

// index is what a coordinator tells of the paths.
func (f *fed) index(t *testing.T, paths []string) []feed.Path {
	t.Helper()
	x := feed.NewIndex(feed.IndexConfig{Key: f.key, Info: func(_ context.Context, path string) (feed.Path, error) {
		query := func(what string) []string {
			return strings.Fields(output(t, f.giver, testbed.Root, "nix-store", "--query", what, path))
		}
		size, err := strconv.ParseInt(query("--size")[0], 10, 64)
		return feed.Path{Path: path, NarHash: query("--hash")[0], NarSize: size, References: query("--references")}, err
	}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go x.Run(ctx)
	x.Built(feed.Built{Machine: "any", Outputs: paths})
	var page feed.Page
	eventually(t, "indexed", func() bool {
		page = x.Page(t.Context(), 0, time.Second)
		return len(page.Paths) == len(paths)
	})
	return page.Paths
}

// start starts a feeder and returns what it says when it is there.
func (f *fed) start(t *testing.T, on *testbed.Host, page feed.Page, args ...string) string {
	t.Helper()
	text, err := json.Marshal(page)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background()) // t's ends before its processes are waited for
	cmd := on.Command(ctx, append([]string{"feeder"}, args...)...)
	cmd.Stdin = bytes.NewReader(text)
	var log transcript
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("feeder %s:\n%s", strings.Join(args, " "), log.String())
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("feeder %s: %v", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(line)
}

// cache starts peers that give in these ways, and a cache of theirs.
func (f *fed) cache(t *testing.T, paths []feed.Path, peers ...string) (url string) {
	t.Helper()
	page := feed.Page{Cursor: 1}
	for _, how := range peers {
		f.port++
		addr := netip.AddrPortFrom(f.giver.IP(), f.port)
		if how == "unheard" { // nobody has this address
			addr = netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), 9000)
		}
		page.Peers = append(page.Peers, feed.Peer{Name: how, Node: how, Addr: addr})
	}
	for _, p := range paths {
		p.Holders = peers
		page.Paths = append(page.Paths, p)
	}
	for i, how := range peers {
		if how != "gone" && how != "unheard" {
			f.start(t, f.giver, page, "give", how, page.Peers[i].Addr.String())
		}
	}
	return f.start(t, f.taker, page, "take", f.publicKey())
}

func (f *fed) publicKey() string { return f.key.ToPublicKey().String() }

// forget lets the taker have nothing.
func (f *fed) forget(t *testing.T) {
	t.Helper()
	for _, p := range slices.Backward(f.closure) { // users first
		if f.has(t, p.Path) {
			output(t, f.taker, testbed.Root, "nix-store", "--delete", "--ignore-liveness", p.Path)
		}
	}
}

func (f *fed) has(t *testing.T, path string) bool {
	t.Helper()
	return f.taker.Run(within(t, patience), "nix-store", "--check-validity", path) == nil
}

// realise has the taker's Nix get the path from the cache, or not.
func (f *fed) realise(t *testing.T, url string) (says string, ok bool) {
	t.Helper()
	cmd := f.taker.Command(within(t, feedTime), "sh", "-c", `exec "$@" 2>&1`, "sh", "nix-store", "--realise", f.needs,
		"--option", "substituters", url, "--option", "trusted-public-keys", f.publicKey())
	began := time.Now()
	out, err := cmd.Output()
	t.Logf("nix-store --realise took %.1f s: %v\n%s", time.Since(began).Seconds(), err, out)
	if time.Since(began) >= feedTime {
		t.Error("it hangs")
	}
	return string(out), err == nil
}

// copied has the coordinator's Nix let the taker get the path, and copy what it does not.
func (f *fed) copied(t *testing.T, url string) {
	t.Helper()
	store := fmt.Sprintf("#!/bin/sh\nexport NIX_CONFIG='extra-substituters = %s\nextra-trusted-public-keys = %s'\nexec nix-daemon \"$@\"\n", url, f.publicKey())
	if err := f.taker.WriteFile(within(t, patience), "/root/store", []byte(store), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := f.taker.Command(within(t, feedTime), "sh", "-c", `exec "$@" 2>&1`, "sh", "nix", "copy", "--substitute-on-destination", "--no-check-sigs",
		"--from", coordinatorsStore, "--to", "ssh-ng://localhost?remote-program=/root/store", f.needs)
	began := time.Now()
	out, err := cmd.Output()
	t.Logf("nix copy took %.1f s: %v\n%s", time.Since(began).Seconds(), err, out)
	if err != nil || !f.has(t, f.needs) {
		t.Errorf("the coordinator could not copy the path: %v", err)
	}
}

func (f *fed) tell(t *testing.T, peers []string, takes bool, says string) {
	f.forget(t)
	url := f.cache(t, f.closure, peers...)
	said, ok := f.realise(t, url)
	for range peers { // each that broke off is not asked again
		if takes && !ok {
			said, ok = f.realise(t, url)
		}
	}
	if ok != takes || f.has(t, f.needs) != takes || !strings.Contains(said, says) {
		t.Errorf("Nix got the path: %v, want %v and %q", ok, takes, says)
	}
	f.forget(t)
	f.copied(t, f.cache(t, f.closure, peers...)) // which has not learnt anything of them
}

// signedByAnother is a path as somebody tells of it who is not the coordinator.
func (f *fed) signedByAnother(t *testing.T) {
	f.forget(t)
	other, _, err := signature.GenerateKeypair("run-1", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	forged := *f
	forged.key = other
	paths := make([]string, len(f.closure))
	for i, p := range f.closure {
		paths[i] = p.Path
	}
	url := f.cache(t, forged.index(t, paths), "honest")
	if says, ok := f.realise(t, url); ok || f.has(t, f.needs) || !strings.Contains(says, "not signed by any of the keys") {
		t.Error("Nix believes what another key has signed")
	}
	f.copied(t, url)
}
