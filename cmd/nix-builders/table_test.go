package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/golden"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

// A cluster with a builder in every state, one of which says ugly things.
func cluster() apiclient.Cluster {
	offer := func(system string, cores int, gib int64) *apiclient.Offer {
		return &apiclient.Offer{Systems: []string{system}, Cores: cores, MemoryBytes: gib << 30, StoreFreeBytes: 80 << 30, NixVersion: "2.34.8"}
	}
	return apiclient.Cluster{
		Id: "acme/site/42/1", Phase: "ready", Reason: "2 of 6 builders are ready, 2 needed", Since: ago(90 * time.Second), Quorum: 2,
		Builders: []apiclient.Builder{
			{
				Name: "nix-builder-a1-ubuntu-24.04-1", State: "ready", Reason: "its store answered", Since: ago(95 * time.Second),
				Offer: offer("x86_64-linux", 4, 16), MaxJobs: new(4), SilentSeconds: new(3.25),
				Vitals: &apiclient.Vitals{CpuPercent: 87.4, MemoryFreeBytes: 5 << 29, StoreFreeBytes: 61 << 30, Builds: 3},
			},
			{
				Name: "nix-builder-a1-ubuntu-24.04-arm-1", State: "ready", Reason: "its store answered", Since: ago(400 * time.Millisecond),
				Offer: offer("aarch64-linux", 4, 16), MaxJobs: new(4), SilentSeconds: new(0.4),
			},
			{
				Name: "nix-builder-a1-macos-26-1", State: "joined", Reason: "ssh: connect to host 100.64.0.9 port 22: Operation timed out",
				Since: ago(40 * time.Second), Offer: offer("aarch64-darwin", 3, 7), SilentSeconds: new(12.0),
			},
			{Name: "nix-builder-a1-macos-26-intel-1", State: "expected", Reason: "never checked in", Since: ago(5 * time.Minute)},
			{
				Name: "nix-builder-a1-big-1", State: "lost", Reason: "silent for 45.1s", Since: ago(3 * time.Hour),
				Offer: offer("x86_64-linux", 64, 256), SilentSeconds: new(10845.0),
			},
			{
				Name: "nix-builder-a1-liar-1", State: "departed", Reason: "failed: \x1b[31mred\x1b[0m\n::error::now I am a workflow command ##[error]and now",
				Since: ago(time.Minute),
			},
		},
	}
}

func TestClusterTable(t *testing.T) {
	var out bytes.Buffer
	writeCluster(&out, cluster(), now)
	golden.Equal(t, "cluster.golden", out.String())
}

func TestMissingReport(t *testing.T) {
	c := cluster()
	c.Phase, c.Quorum = "failed", 6
	var out bytes.Buffer
	writeMissing(&out, c, &settings{Cluster: clusterSettings{
		Port: 8378, Lease: seconds(45 * time.Second), BuilderTag: "tag:nix-ci-builder", CoordinatorTag: "tag:nix-ci-coordinator",
	}}, now)
	golden.Equal(t, "missing.golden", out.String())
}

func TestReleased(t *testing.T) {
	var out bytes.Buffer
	for _, r := range []apiclient.Released{
		{Name: "b1", State: "departed", Reason: "left as it was told to", Left: true, AfterSeconds: new(0.0123)},
		{Name: "b2", State: "expected", Reason: "never checked in", Left: true},
		{Name: "b3", State: "lost", Reason: "silent for 45s", Left: false},
	} {
		writeReleased(&out, r)
	}
	golden.Equal(t, "released.golden", out.String())
}
