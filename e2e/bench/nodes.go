package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"golang.org/x/sync/errgroup"
	"tailscale.com/envknob"
	"tailscale.com/tsnet"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
	"github.com/Misaka13514/setup-distributed-nix-builds/httpapi"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/tailnet"
)

// tailnetPort is the port of the API on the coordinator's node.
const tailnetPort = 8378

// A tailnetOfNodes is a tailnet whose nodes all live in this process: a coordinator and
// builders, each with a network stack of its own.
type tailnetOfNodes struct {
	control     *control.Server
	coordinator *tsnet.Server
	client      *tailnet.Client // of the coordinator's node
	builders    []*tsnet.Server
}

// startTailnet makes a tailnet. Its builders are named like the first of a crowd.
func startTailnet(ctx context.Context, builders int) (_ *tailnetOfNodes, err error) {
	envknob.SetNoLogsNoSupport() // these nodes are nobody else's business
	cs, err := control.Start(control.Config{})
	if err != nil {
		return nil, err
	}
	tn := &tailnetOfNodes{control: cs, builders: make([]*tsnet.Server, builders)}
	defer func() {
		if err != nil {
			err = errors.Join(err, tn.close())
		}
	}()
	if tn.coordinator, err = cs.Node(ctx, "nix-coordinator-bench", httpapi.DefaultCoordinatorTag); err != nil {
		return nil, err
	}
	lc, err := tn.coordinator.LocalClient()
	if err != nil {
		return nil, err
	}
	tn.client = tailnet.FromLocal(lc)
	starting, ctx := errgroup.WithContext(ctx)
	for i := range tn.builders {
		starting.Go(func() (err error) {
			name := crowd{prefix: "nix-builder-bench"}.name(i)
			tn.builders[i], err = cs.Node(ctx, name, httpapi.DefaultBuilderTag)
			return err
		})
	}
	return tn, starting.Wait()
}

// close ends all nodes and then their tailnet.
func (tn *tailnetOfNodes) close() error { return tn.control.Close() }

// listen opens the API's port on the coordinator's node, and returns it with the base URL.
func (tn *tailnetOfNodes) listen() (net.Listener, string, error) {
	l, err := tn.coordinator.Listen("tcp", fmt.Sprintf(":%d", tailnetPort))
	if err != nil {
		return nil, "", err
	}
	v4, _ := tn.coordinator.TailscaleIPs()
	return l, fmt.Sprintf("http://%s:%d%s", v4, tailnetPort, httpapi.Base), nil
}

// transport is HTTP from builder i's node.
func (tn *tailnetOfNodes) transport(i int) *http.Transport {
	return &http.Transport{DialContext: tn.builders[i].Dial}
}

// whoIs asks the coordinator's node, as the program asks tailscaled.
func (tn *tailnetOfNodes) whoIs(ctx context.Context, remote string) (httpapi.Caller, error) {
	c, err := tn.client.WhoIs(ctx, remote)
	if err != nil {
		return httpapi.Caller{}, err
	}
	return httpapi.Caller{ID: c.ID, Name: c.Name, FQDN: c.FQDN, User: c.User, Addr: c.Addr, Tags: c.Tags, Caps: c.Caps, Self: c.Self}, nil
}
