package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"github.com/Misaka13514/setup-distributed-nix-builds/builder"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/called"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/direct"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/dispatch"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/feed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/host"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/rundir"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/tailnet"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/unixsock"
)

// How Nix reaches builders' stores.
const (
	transportAuto   choice = "auto"
	transportDirect choice = "direct"
	transportSSH    choice = "ssh"
)

// spareStores is how many processes a builder keeps ready to serve its store.
const spareStores = 2

// A storeServer serves a builder's store to its coordinator.
type storeServer struct {
	*direct.Server
	listening *tailnet.Listening
	sharing   *sharing
}

// listenStore listens for this builder's coordinator. The error says why it can't.
func (b *thisHost) listenStore(ctx context.Context) (_ *storeServer, err error) {
	program, err := b.programs.StoreProgram()
	if err != nil {
		return nil, err
	}
	env, err := b.programs.Environment()
	if err != nil {
		return nil, err
	}
	self, err := b.client.Self(ctx)
	if err != nil {
		return nil, err
	}
	sharing, err := b.newSharing(self.ID)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			sharing.proxy.Close()
		}
	}()
	server, err := direct.New(direct.Config{
		WhoIs: func(ctx context.Context, addr string) (direct.Caller, error) {
			c, err := b.client.WhoIs(ctx, addr)
			return direct.Caller{ID: c.ID, Name: c.Name, Addr: c.Addr, Tags: c.Tags}, err
		},
		CoordinatorTag: b.set.Cluster.CoordinatorTag,
		Command:        []string{program, "--stdio"},
		Env: func() []string {
			if conf := sharing.conf(); conf != "" {
				return append(slices.Clip(env), "NIX_CONFIG="+conf)
			}
			return env
		},
		Spare:      spareStores,
		StoreSpace: b.programs.StoreSpace,
		OOMKills:   host.OOMKills,
		Log:        b.log,
	})
	if err != nil {
		return nil, err
	}
	l, err := b.client.Listen(ctx, tailnet.ListenConfig{
		Port: int(b.set.Builder.StorePort), Silence: time.Duration(b.set.Cluster.Lease),
	})
	if err != nil {
		return nil, err
	}
	for _, own := range l.Own { // nobody here has a use for it
		own.Close()
	}
	server.Handle(feed.NarPattern, sharing.allow, sharing.server)
	return &storeServer{server, l, sharing}, nil
}

// serveWhile serves the store while run runs, and returns what that does when nothing of
// what was served is left.
func (s *storeServer) serveWhile(ctx context.Context, log *slog.Logger, run func(context.Context) error) error {
	// It outlives ctx: run says good-bye before builds end.
	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var server sync.WaitGroup
	server.Go(func() {
		if err := s.Serve(serving, s.listening.Tailnet...); err != nil {
			log.Error("the store is not served any more", "error", err) // builds that come find nobody
		}
	})
	server.Go(func() {
		if err := s.sharing.run(serving); err != nil {
			log.Warn("no paths are shared any more", "error", err)
		}
	})
	err := run(ctx)
	end()
	server.Wait()
	if told := s.sharing.told(); told != "" {
		fmt.Fprintln(s.sharing.app.stdout, told)
	}
	return err
}

// claimed opens the store to a coordinator. The key signs what its builders share.
func (s *storeServer) claimed(c builder.Candidate, key string) {
	s.sharing.claimed(c.Base, key) // first: processes are started for the coordinator at once
	u, err := url.Parse(c.Base)
	if err != nil {
		return // it was asked there
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil {
		s.Claim(addr)
	}
}

// directTo is how the coordinator's Nix reaches builders without ssh; nil if it does not.
func (a *app) directTo(d *rundir.Dir, pool *direct.Pool) *dispatch.Direct {
	if a.set.Coordinator.Transport == transportSSH {
		return nil
	}
	how := &dispatch.Direct{
		// The program and the directory in one, for the URIs of stores must be short.
		Program: d.Path(dialProgram), Dir: ".",
		Only: a.set.Coordinator.Transport == transportDirect,
	}
	if pool != nil {
		how.Keep = pool.Set
	}
	return how
}

// dialProgram in the coordinator's directory is a link to the program that Nix calls.
const dialProgram = "nix-builders"

// placeDialing puts into the coordinator's directory what dial-store needs.
func (a *app) placeDialing(d *rundir.Dir, userspace bool) error {
	program, err := calledProgram()
	if err != nil {
		return err
	}
	if err := renameio.Symlink(program, d.Path(dialProgram)); err != nil {
		return fmt.Errorf("let Nix find this program: %w", err)
	}
	return d.Save(called.DialFile, 0o644, called.Dialing{
		LeaseSeconds: time.Duration(a.set.Cluster.Lease).Seconds(),
		Userspace:    userspace, Socket: a.set.Tailnet.TailscaleSocket,
	})
}

// storePool gives a pool of connections to builders' stores and what serves it until its
// context ends; no pool where connections can't be handed to another process.
func (a *app) storePool(d *rundir.Dir, client *tailnet.Client, userspace bool) (*direct.Pool, func(context.Context) error, error) {
	if userspace || a.set.Coordinator.Transport == transportSSH {
		return nil, func(context.Context) error { return nil }, nil
	}
	ln, err := unixsock.Listen(d.Path(called.StoresSocket), -1)
	if err != nil {
		return nil, nil, err
	}
	pool := direct.NewPool(direct.PoolConfig{Dial: client.Dialer(time.Duration(a.set.Cluster.Lease)), Log: a.log})
	return pool, func(ctx context.Context) error {
		if err := pool.Serve(ctx, ln); err != nil {
			// Builds connect by themselves then, and must not end with it.
			a.log.Warn("connections to builders are not kept ready any more", "error", err)
		}
		return nil
	}, nil
}
