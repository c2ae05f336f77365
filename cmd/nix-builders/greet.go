package main

import (
	"context"
	"slices"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/tailnet"
)

// greet opens the way for builders that join the tailnet, until all that are expected have
// come or ctx ends.
func (a *app) greet(ctx context.Context, client *tailnet.Client, cluster *coordinator.Cluster) {
	client.Greet(ctx, func(p tailnet.Peer) bool {
		return slices.Contains(p.Tags, a.set.Cluster.BuilderTag)
	}, func() bool {
		v := cluster.View()
		return v.Phase <= coordinator.Ready && slices.ContainsFunc(v.Builders, func(b coordinator.Builder) bool {
			return b.State == coordinator.Expected || b.State == coordinator.Lost
		})
	})
}
