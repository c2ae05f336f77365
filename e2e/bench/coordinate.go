package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	contract "github.com/Misaka13514/setup-distributed-nix-builds"
	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/httpapi"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/journal"
)

// longLease makes a poll wait as long as the API lets it, so that none is renewed while
// the crowd is being measured.
const longLease = 15 * time.Minute

// A coordinating is a coordinator that serves, put together as the program does it: its
// state is saved on a disk, and its log goes to a file.
type coordinating struct {
	cluster *coordinator.Cluster
	end     func() error // ends it and waits
}

// coordinate starts a coordinator for the crowd, with its files in dir.
func coordinate(dir string, of crowd, whoIs whoIs, dispatch coordinator.Dispatch, listeners ...net.Listener) (*coordinating, error) {
	logFile, err := os.Create(filepath.Join(dir, "server.log"))
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(logFile, nil))
	state, err := journal.Open(filepath.Join(dir, "state.json"), of.cluster)
	if err != nil {
		return nil, err
	}
	cluster, err := coordinator.New(coordinator.Config{
		ID: of.cluster, Builders: of.names(), MaxBuilders: of.size,
		Lease: longLease, Log: log, Journal: state, Dispatch: dispatch,
	})
	if err != nil {
		return nil, err
	}
	server, err := httpapi.New(httpapi.Config{Cluster: cluster, WhoIs: whoIs, Contract: contract.OpenAPI, Log: log})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	running, ctx := errgroup.WithContext(ctx)
	running.Go(func() error { return cluster.Run(ctx) })
	running.Go(func() error { return server.Serve(ctx, listeners...) })
	return &coordinating{cluster: cluster, end: func() error {
		cancel()
		return errors.Join(running.Wait(), logFile.Close())
	}}, nil
}

// whoIs is what httpapi asks of the tailnet.
type whoIs = func(context.Context, string) (httpapi.Caller, error)

// listen opens a loopback port and returns it with the API's base URL.
func listen() (net.Listener, string, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(coordinatorAddr().String(), "0"))
	if err != nil {
		return nil, "", err
	}
	return l, fmt.Sprintf("http://%s%s", l.Addr(), httpapi.Base), nil
}
