package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/rundir"
)

// reach returns the API of the cluster that the settings mean: the one they give, or
// the one whose coordinator runs on this host.
func (s *settings) reach() (*apiclient.API, error) {
	if s.Cluster.API != "" {
		return apiclient.New(s.Cluster.API, nil)
	}
	dirs, err := rundir.Find(s.Files.StateDir, rundir.Coordinator)
	if err != nil {
		return nil, err
	}
	var servers []rundir.Server
	for _, d := range dirs {
		server, err := d.Server()
		switch {
		case errors.Is(err, rundir.ErrNone):
		case err != nil:
			return nil, err
		case s.Cluster.Cluster == "" || s.Cluster.Cluster == server.Cluster:
			servers = append(servers, server)
		}
	}
	switch len(servers) {
	case 0:
		return nil, errors.New("no coordinator runs on this host: set NIX_BUILDERS_API to its API, http://HOST:8378/v1")
	case 1:
		return apiOf(servers[0])
	}
	ids := make([]string, len(servers))
	for i, server := range servers {
		ids[i] = server.Cluster
	}
	return nil, fmt.Errorf("several clusters run on this host, set NIX_BUILDERS_CLUSTER to one of: %s", strings.Join(ids, ", "))
}

// apiOf reaches a server of this host: over its control socket where it has one that
// this user may use, else at its address.
func apiOf(server rundir.Server) (*apiclient.API, error) {
	if server.Socket == "" || unix.Access(server.Socket, unix.W_OK) != nil {
		return apiclient.New(server.API, nil)
	}
	return apiclient.New(server.API, &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			d := net.Dialer{Timeout: 5 * time.Second}
			return d.DialContext(ctx, "unix", server.Socket)
		},
	}})
}
