package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/builder"
	"github.com/Misaka13514/setup-distributed-nix-builds/httpapi"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/host"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/rundir"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/tailnet"
)

var builderCommand = command{
	name:    "builder",
	summary: "lend this host to the coordinator until it says stop",
	detail: `Joins the tailnet with Tailscale SSH on, finds the coordinator of its cluster among the
peers with the coordinator's tag, checks in, and waits. Prints a line of vitals every
minute. Leaves the tailnet when it ends.

Needs NIX_BUILDERS_HOSTNAME, an auth key or NIX_BUILDERS_CLIENT_ID where nobody is logged in
or joining yet, and outside GitHub NIX_BUILDERS_CLUSTER. An ordinary user needs sudo, or a
NIX_BUILDERS_STATE_DIR of his own and a tailscaled that needs no root.

Exit code 0 when the coordinator released it, or fell silent after it had claimed it; 1
when nobody claimed it within NIX_BUILDERS_BUILDER_TIMEOUT; 130 when it was cancelled.`,
	run: func(ctx context.Context, a *app, args []string) error {
		if len(args) > 0 {
			return usagef("builder takes no argument %q", clip(args[0]))
		}
		if err := a.checkMember(rundir.Builder); err != nil {
			return err
		}
		front := a.needsFront(rundir.Builder)
		if err := a.takeSecrets(ctx, need{front: front, login: !a.joined(rundir.Builder)}); err != nil {
			return err
		}
		if front {
			return a.front(ctx, "builder")
		}
		return a.build(ctx)
	},
}

func (a *app) build(ctx context.Context) error {
	d, err := a.claim(rundir.Builder)
	if err != nil {
		return err
	}
	m, err := a.become(ctx, d, rundir.Builder)
	if err != nil {
		return errors.Join(err, a.endMembership(d))
	}
	err = a.serveBuilds(ctx, m.Client())
	if left := a.endMembership(d); left != nil {
		// The tailnet forgets an ephemeral node by itself; the builder's work is done.
		a.log.Warn("leave the tailnet", "error", left)
	}
	return err
}

func (a *app) serveBuilds(ctx context.Context, client *tailnet.Client) error {
	b := &thisHost{client: client, programs: nix.Programs{Path: os.Getenv("PATH")}, app: a}
	var err error
	if b.stores, err = b.listenStore(ctx); err != nil {
		fmt.Fprintf(a.stdout, "this host's store is served over SSH only: %v\n", err)
	}
	cfg := builder.Config{
		Cluster:      a.set.Cluster.Cluster,
		Name:         a.set.Tailnet.Hostname,
		Label:        tailnet.SanitizeHostname,
		Coordinators: b.coordinators,
		Transport:    client.Transport(time.Duration(a.set.Cluster.Lease)),
		Offer:        b.offer,
		Vitals:       b.vitals,
		Builds:       b.builds.Count,
		Timeout:      time.Duration(a.set.Builder.BuilderTimeout),
		Out:          a.stdout,
		Log:          a.log,
	}
	if b.stores == nil {
		agent, err := builder.New(cfg)
		if err != nil {
			return err
		}
		return agent.Run(ctx)
	}
	cfg.Serve, cfg.Fence = b.stores.claimed, b.stores.Fence
	agent, err := builder.New(cfg)
	if err != nil {
		return errors.Join(err, b.stores.listening.Close())
	}
	return b.stores.serveWhile(ctx, a.log, agent.Run)
}

// thisHost is what the agent wants to know about the host and its tailnet.
type thisHost struct {
	*app
	client   *tailnet.Client
	programs nix.Programs
	builds   nix.BuildCounter // its group is set by offer
	cpu      host.CPUMeter
	stores   *storeServer // nil: the store is served over SSH only
}

// coordinators lists who may be the coordinator: the one that the settings name, or every
// peer with the tag, whether it is thought online or not.
func (b *thisHost) coordinators(ctx context.Context) ([]builder.Candidate, error) {
	peers, err := b.client.Peers(ctx)
	if err != nil {
		return nil, err
	}
	want := b.set.Builder.Coordinator
	var found []builder.Candidate
	for _, p := range peers {
		named := p.Name == tailnet.SanitizeHostname(want) || p.FQDN == want || p.Addr.String() == want
		if want != "" && named || want == "" && slices.Contains(p.Tags, b.set.Cluster.CoordinatorTag) {
			found = append(found, b.candidate(p.Name, p.Addr.String()))
		}
	}
	if addr, err := netip.ParseAddr(want); err == nil && len(found) == 0 {
		found = append(found, b.candidate(want, addr.String()))
	}
	return found, nil
}

func (b *thisHost) candidate(name, addr string) builder.Candidate {
	port := strconv.Itoa(int(b.set.Cluster.Port))
	return builder.Candidate{Name: name, Base: "http://" + net.JoinHostPort(addr, port) + httpapi.Base}
}

func (b *thisHost) offer(ctx context.Context) (apiclient.Offer, error) {
	f, err := b.programs.Gather(ctx, b.log)
	if err != nil {
		return apiclient.Offer{}, err
	}
	self, err := b.client.Self(ctx)
	if err != nil {
		return apiclient.Offer{}, err
	}
	b.builds.Group = f.BuildGroup
	fmt.Fprintf(b.stdout, "offering %v: %d cores, %s memory, %s free in /nix, Nix %s, features %v\n",
		f.Systems, f.Cores, size(int64(f.Memory)), size(int64(f.StoreFree)), f.Version, f.Features)
	offer := apiclient.Offer{
		Systems: f.Systems, Features: f.Features, NixVersion: f.Version, StoreProgram: f.StoreProgram,
		Cores: f.Cores, MemoryBytes: int64(f.Memory), StoreFreeBytes: int64(f.StoreFree),
	}
	if len(self.HostKeys) > 0 {
		offer.HostKeys = &self.HostKeys
	}
	if b.stores != nil {
		offer.StorePort = new(int(b.set.Builder.StorePort))
	}
	if n := b.set.Cluster.MaxJobs; n > 0 {
		offer.MaxJobs = &n
	}
	if n := b.set.Cluster.SpeedFactor; n > 0 {
		offer.SpeedFactor = &n
	}
	return offer, nil
}

func (b *thisHost) vitals(ctx context.Context) (apiclient.Vitals, error) {
	percent, err := b.cpu.Percent(ctx)
	if err != nil {
		return apiclient.Vitals{}, err
	}
	_, memory, err := host.Memory(ctx)
	if err != nil {
		return apiclient.Vitals{}, err
	}
	total, free, err := b.programs.StoreSpace(ctx)
	if err != nil {
		return apiclient.Vitals{}, err
	}
	memoryStall, ioStall, err := host.Stalls()
	if err != nil {
		return apiclient.Vitals{}, err
	}
	builds, err := b.builds.Count(ctx)
	if err != nil {
		return apiclient.Vitals{}, err
	}
	return apiclient.Vitals{
		CpuPercent: percent, Builds: builds,
		MemoryFreeBytes: int64(memory), MemoryStallPercent: memoryStall,
		StoreFreeBytes: int64(free), StoreTotalBytes: new(int64(total)), IoStallPercent: ioStall,
	}, nil
}
