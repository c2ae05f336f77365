package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/feed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nixstore"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/rundir"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
)

// pathIndex knows which builders have which paths, for the coordinator; nil if they share none.
// It tells sized how large they are.
func (a *app) pathIndex(d *rundir.Dir, sized func(path string, bytes int64)) (*feed.Index, error) {
	if !a.set.Coordinator.SharePaths {
		return nil, nil
	}
	digest := sha256.Sum256([]byte(a.set.Cluster.Cluster))
	key, err := feed.LoadKey(d.Path("paths.key"), "nix-builders-"+hex.EncodeToString(digest[:8])+"-1")
	if err != nil {
		return nil, err
	}
	store := new(nixstore.Store)
	return feed.NewIndex(feed.IndexConfig{
		Key: key,
		Info: func(ctx context.Context, path string) (feed.Path, error) {
			info, err := store.PathInfo(ctx, path)
			return feed.Path{
				Path: info.Path, NarHash: info.NarHash, NarSize: info.NarSize,
				References: info.References, Deriver: info.Deriver, CA: info.CA,
			}, err
		},
		Outputs: func(ctx context.Context, derivation string) (paths []string, err error) {
			outputs, err := store.Outputs(ctx, derivation)
			for _, p := range outputs {
				if p != "" {
					paths = append(paths, p)
				}
			}
			return paths, err
		},
		Sized: sized,
		Log:   a.log,
	}), nil
}

// built tells the index of a build; x may be nil.
func built(x *feed.Index) func(scheduler.Built) {
	if x == nil {
		return nil
	}
	return func(b scheduler.Built) {
		x.Built(feed.Built{Machine: b.Machine, Derivation: b.Build.Derivation, Outputs: b.Build.Outputs, Inputs: b.Inputs})
	}
}

// pathPage is a page of the index as the API has it, with the builders that are there.
func pathPage(x *feed.Index, view func() coordinator.View) func(context.Context, int64, time.Duration) apiclient.PathPage {
	if x == nil {
		return nil
	}
	return func(ctx context.Context, after int64, wait time.Duration) apiclient.PathPage {
		page := x.Page(ctx, after, wait)
		out := apiclient.PathPage{Cursor: page.Cursor, Peers: []apiclient.PathPeer{}, Paths: []apiclient.StorePath{}}
		for _, b := range view().Builders {
			if b.State.Answered() && !b.Leaving && b.Offer != nil && b.Offer.StorePort != nil {
				// By the name that machines have.
				out.Peers = append(out.Peers, apiclient.PathPeer{
					Name: strings.ToLower(b.Name), Node: b.Node.ID, Address: b.Node.Addr.String(), Port: *b.Offer.StorePort,
				})
			}
		}
		for _, p := range page.Paths {
			one := apiclient.StorePath{
				Path: p.Path, NarHash: p.NarHash, NarSize: p.NarSize, Signature: p.Signature,
				References: append([]string{}, p.References...), Holders: p.Holders,
			}
			if p.Deriver != "" {
				one.Deriver = &p.Deriver
			}
			if p.CA != "" {
				one.Ca = &p.CA
			}
			out.Paths = append(out.Paths, one)
		}
		return out
	}
}

func pathKey(x *feed.Index) string {
	if x == nil {
		return ""
	}
	return x.Key()
}
