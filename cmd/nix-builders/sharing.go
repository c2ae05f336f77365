package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"
	"golang.org/x/sync/errgroup"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/direct"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/feed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nixstore"
)

// A sharing lets a builder take store paths from the others of its cluster, and give them
// some, as long as its coordinator says that they share.
type sharing struct {
	app      *app
	requests *http.Client // to the coordinator
	store    nixstore.Store
	follower *feed.Follower
	server   *feed.Server
	proxy    *feed.Proxy

	mu      sync.Mutex     // guards what follows
	api     *apiclient.API // nil while nothing is shared
	key     string         // empty while nothing is shared
	changed chan struct{}  // closed when they do
}

// newSharing prepares a builder, whose node has this id, to share. It shares nothing yet.
func (b *thisHost) newSharing(node string) (*sharing, error) {
	lease := time.Duration(b.set.Cluster.Lease)
	s := &sharing{
		app: b.app, requests: &http.Client{Transport: b.client.Transport(lease)}, changed: make(chan struct{}),
	}
	s.follower = feed.NewFollower(feed.FollowerConfig{Fetch: s.fetch, Self: node, Log: b.log})
	s.server = feed.NewServer(feed.ServerConfig{Follower: s.follower, Valid: s.store.Valid, Log: b.log})
	var err error
	s.proxy, err = feed.NewProxy(feed.ProxyConfig{
		Follower: s.follower, Transport: b.client.Transport(lease), Log: b.log,
	})
	return s, err
}

// claimed takes up with a coordinator, by the base of its API. An empty key says that its
// builders share nothing.
func (s *sharing) claimed(base, key string) {
	var api *apiclient.API
	if key != "" {
		_, err := signature.ParsePublicKey(key)
		if err == nil {
			api, err = apiclient.New(base, s.requests)
		}
		if err != nil {
			s.app.log.Warn("no paths are shared", "error", err)
			key, api = "", nil
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.api, s.key = api, key
	close(s.changed)
	s.changed = make(chan struct{})
}

var errNotShared = errors.New("nothing is shared")

// fetch asks the coordinator for what the builders have.
func (s *sharing) fetch(ctx context.Context, after int64, wait time.Duration) (feed.Page, error) {
	s.mu.Lock()
	api, changed := s.api, s.changed
	s.mu.Unlock()
	if api == nil {
		select {
		case <-changed:
		case <-time.After(wait):
		case <-ctx.Done():
		}
		return feed.Page{}, errNotShared
	}
	page, err := api.Paths(ctx, after, wait)
	return pageOf(page), err
}

// pageOf is a page that was received. What can't be is left out.
func pageOf(p apiclient.PathPage) feed.Page {
	page := feed.Page{Cursor: p.Cursor}
	for _, peer := range p.Peers {
		addr, err := netip.ParseAddr(peer.Address)
		if err != nil || peer.Port < 1 || peer.Port > 65535 {
			continue
		}
		page.Peers = append(page.Peers, feed.Peer{
			Name: peer.Name, Node: peer.Node, Addr: netip.AddrPortFrom(addr, uint16(peer.Port)),
		})
	}
	for _, one := range p.Paths {
		path := feed.Path{
			Path: one.Path, NarHash: one.NarHash, NarSize: one.NarSize, References: one.References,
			Signature: one.Signature, Holders: one.Holders,
		}
		if one.Deriver != nil {
			path.Deriver = *one.Deriver
		}
		if one.Ca != nil {
			path.CA = *one.Ca
		}
		page.Paths = append(page.Paths, path)
	}
	return page
}

// conf is what a process of Nix is told, so that it takes paths from other builders.
func (s *sharing) conf() string {
	s.mu.Lock()
	key := s.key
	s.mu.Unlock()
	if key == "" {
		return ""
	}
	return s.proxy.Conf(key)
}

// allow lets in the builders of this cluster.
func (s *sharing) allow(c direct.Caller) error {
	if !slices.Contains(c.Tags, s.app.set.Cluster.BuilderTag) || !s.follower.IsPeer(c.ID) {
		return fmt.Errorf("%s is no builder of this cluster that shares paths", c.Name)
	}
	return nil
}

// run shares until ctx ends.
func (s *sharing) run(ctx context.Context) error {
	var parts errgroup.Group
	parts.Go(func() error { s.follower.Run(ctx); return nil })
	parts.Go(func() error { return s.proxy.Serve(ctx) })
	err := parts.Wait()
	return errors.Join(err, s.store.Close())
}

// told is what a person is told of what came from other builders.
func (s *sharing) told() string {
	if n := s.proxy.Stats().Taken.Bytes; n > 0 {
		return fmt.Sprintf("took %d MB of inputs from other builders", (n+999_999)/1_000_000)
	}
	return ""
}
