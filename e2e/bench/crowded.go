package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/measure"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/httpapi"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/dispatch"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/tailnet"
)

const (
	crowdedSize = 32
	crowdedTime = 5.0 // seconds
)

// gatherCrowd lets 32 builders check in at the same moment with a coordinator on a lab
// host. The check-ins are made up, from the loopback. Everything that follows is real:
// each of the 32 stores is opened over Tailscale SSH as the program does it, though there
// are but three hosts that have one; Nix's and SSH's files are the host's own, and its
// daemon is restarted.
func gatherCrowd(ctx context.Context, b *bench) ([]*measure.Row, error) {
	gather := measure.New(fmt.Sprintf("%d check-ins at once: first one sent to machines written", crowdedSize), measure.Seconds, measure.Runs).
		Below(crowdedTime).Noting("all %d store tests are real, on %d hosts; both ends share this machine", crowdedSize, labBuilders)
	err := withLab(ctx, b, []string{"./e2e/bench"}, func(lab *testbed.Lab) error {
		for _, h := range lab.Hosts() {
			tag := httpapi.DefaultBuilderTag
			if h.Name() == testbed.Coordinator {
				tag = httpapi.DefaultCoordinatorTag
			}
			if err := h.JoinTailnet(ctx, testbed.Tailnet{Tags: []string{tag}, SSH: true}); err != nil {
				return err
			}
		}
		out, err := lab.Host(testbed.Coordinator).Output(ctx, "bench", crowdRole, strconv.Itoa(b.rounds))
		if err != nil {
			return err
		}
		var took []time.Duration
		if err := json.Unmarshal([]byte(out), &took); err != nil {
			return fmt.Errorf("%q: %w", out, err)
		}
		gather.Took(took...)
		return nil
	})
	return []*measure.Row{gather}, err
}

// crowdRole is the part of the coordinator's host in gatherCrowd: bench-crowd ROUNDS. It
// prints how long each gathering took, in nanoseconds, as a JSON array.
const crowdRole = "bench-crowd"

func playCrowd(args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if len(args) != 1 {
		return errors.New("want a number of rounds")
	}
	rounds, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	client := tailnet.New("")
	peers, err := buildersOf(ctx, client)
	if err != nil {
		return err
	}
	var took []time.Duration
	for i := range rounds {
		of := crowd{cluster: fmt.Sprintf("bench/crowd/%d/1", i), prefix: "nix-builder-crowd", size: crowdedSize}
		d, err := gatherOnce(ctx, of, peers)
		if err != nil {
			return err
		}
		took = append(took, d)
	}
	return json.NewEncoder(os.Stdout).Encode(took)
}

// buildersOf waits until the tailnet shows the lab's builders with their host keys.
func buildersOf(ctx context.Context, client *tailnet.Client) ([]tailnet.Peer, error) {
	for {
		peers, err := client.Peers(ctx)
		if err != nil {
			return nil, err
		}
		peers = slices.DeleteFunc(peers, func(p tailnet.Peer) bool {
			return !slices.Contains(p.Tags, httpapi.DefaultBuilderTag) || len(p.HostKeys) == 0
		})
		if len(peers) == labBuilders {
			return peers, nil
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return nil, fmt.Errorf("%d of %d builders are on the tailnet: %w", len(peers), labBuilders, err)
		}
	}
}

// gatherOnce is one cluster, from the first check-in to its end.
func gatherOnce(ctx context.Context, of crowd, peers []tailnet.Peer) (took time.Duration, err error) {
	dir, err := os.MkdirTemp("", "crowd-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	programs := nix.Programs{Path: os.Getenv("PATH")}
	log := slog.New(slog.DiscardHandler)
	daemon := nix.Daemon{Programs: programs, Log: log}
	files, err := dispatch.New(dispatch.Config{
		ID: of.cluster,
		Files: dispatch.Files{
			Machines: machinesFile, NixConf: "/etc/nix/nix.conf", SSHConfig: "/root/.ssh/config",
			KnownHosts: filepath.Join(dir, "known_hosts"),
		},
		Peer: func(_ context.Context, node string) (dispatch.Peer, error) {
			i, err := strconv.Atoi(strings.TrimPrefix(node, "n-"))
			if err != nil {
				return dispatch.Peer{}, err
			}
			p := peers[i%len(peers)]
			return dispatch.Peer{Addr: p.Addr, HostKeys: p.HostKeys}, nil
		},
		Check: programs.CheckStore, Restart: daemon.Restart, Log: log,
	})
	if err != nil {
		return 0, err
	}
	l, base, err := listen()
	if err != nil {
		return 0, err
	}
	c, err := coordinate(dir, of, of.whoIs, files, l)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.end()) }()
	running, stopFiles := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- files.Run(running, c.cluster) }()
	defer func() { stopFiles(); err = errors.Join(err, <-ended) }()

	began := time.Now()
	builders, err := arrive(ctx, of, base)
	if err != nil {
		return 0, err
	}
	if err := ready(ctx, c.cluster); err != nil {
		return 0, err
	}
	info, err := os.Stat(machinesFile)
	if err != nil {
		return 0, err
	}
	text, err := os.ReadFile(machinesFile)
	if err != nil {
		return 0, err
	}
	if n := strings.Count(string(text), "ssh-ng://"); n != of.size {
		return 0, fmt.Errorf("%s has %d machines, not %d", machinesFile, n, of.size)
	}
	for _, r := range builders {
		if err := r.depart(ctx); err != nil {
			return 0, err
		}
		r.close()
	}
	_, err = c.cluster.Stop(ctx, coordinator.StopRequest{By: "the benchmark", Wait: 10 * time.Second})
	return info.ModTime().Sub(began), err
}

// ready waits until the cluster is.
func ready(ctx context.Context, c *coordinator.Cluster) error {
	for v := c.View(); v.Phase != coordinator.Ready; v = c.Await(ctx, v.Revision, time.Second) {
		if v.Phase != coordinator.Gathering || ctx.Err() != nil {
			return fmt.Errorf("the cluster is %s: %s (%w)", v.Phase, v.Reason, context.Cause(ctx))
		}
	}
	return nil
}
