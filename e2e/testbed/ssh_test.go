package testbed_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// TestTailscaleSSH is what a build over the tailnet rests on: the coordinator
// logs in on a builder, whose host key the tailnet itself has published, and
// nobody logs in on the coordinator.
func TestTailscaleSSH(t *testing.T) {
	l := testbed.Start(t, bare(2))
	co, b1, b2 := l.Host(testbed.Coordinator), l.Host("builder-1"), l.Host("builder-2")
	for h, tag := range map[*testbed.Host]string{
		co: "tag:nix-ci-coordinator",
		b1: "tag:nix-ci-builder",
		b2: "tag:nix-ci-builder",
	} {
		if err := h.JoinTailnet(bounded(t), testbed.Tailnet{Tags: []string{tag}, SSH: true}); err != nil {
			t.Fatal(err)
		}
	}

	type peer struct {
		HostName     string
		TailscaleIPs []string
		SSHHostKeys  []string `json:"sshHostKeys"`
	}
	find := func(from *testbed.Host, name string) (p peer) {
		eventually(t, from.Name()+" knows the keys of "+name, func() bool {
			var status struct{ Peer map[string]peer }
			if err := json.Unmarshal([]byte(output(t, from, testbed.Root, "tailscale", "status", "--json")), &status); err != nil {
				t.Fatal(err)
			}
			for _, p = range status.Peer {
				if p.HostName == name {
					return len(p.SSHHostKeys) > 0
				}
			}
			return false
		})
		return p
	}
	ssh := func(from *testbed.Host, to peer) (string, error) {
		var known strings.Builder
		for _, k := range to.SSHHostKeys {
			fmt.Fprintf(&known, "%s %s\n", to.TailscaleIPs[0], k)
		}
		if err := from.WriteFile(bounded(t), "/root/.ssh/known_hosts", []byte(known.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		return from.Output(bounded(t), "ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=10",
			"root@"+to.TailscaleIPs[0], "hostname")
	}

	start := time.Now()
	if got, err := ssh(co, find(co, "builder-1")); err != nil || got != "builder-1" {
		t.Errorf("coordinator to builder-1: %q, %v", got, err)
	}
	t.Logf("ssh took %v", time.Since(start))
	for from, to := range map[*testbed.Host]string{b1: "coordinator", b2: "builder-1"} {
		if got, err := ssh(from, find(from, to)); err == nil {
			t.Errorf("%s logged in on %s, which answered %q", from.Name(), to, got)
		}
	}
}

// TestUserspaceNode joins without a network device, as on a machine where
// nothing may touch the network's configuration.
func TestUserspaceNode(t *testing.T) {
	l := testbed.Start(t, bare(1))
	co, b1 := l.Host(testbed.Coordinator), l.Host("builder-1")
	if err := co.JoinTailnet(bounded(t), testbed.Tailnet{Tags: []string{"tag:nix-ci-coordinator"}}); err != nil {
		t.Fatal(err)
	}
	if err := b1.JoinTailnet(bounded(t), testbed.Tailnet{Tags: []string{"tag:nix-ci-builder"}, Userspace: true}); err != nil {
		t.Fatal(err)
	}
	if got := output(t, b1, testbed.Root, "sh", "-c", "ls /sys/class/net"); strings.Contains(got, "tailscale") {
		t.Errorf("links: %s", got)
	}
	output(t, co, testbed.Root, "tailscale", "ping", "--c=1", "--timeout=5s", "--until-direct=false", "builder-1")
}

// TestControlOutage: what is connected stays so without the control server.
func TestControlOutage(t *testing.T) {
	l := testbed.Start(t, bare(1))
	co, b1 := l.Host(testbed.Coordinator), l.Host("builder-1")
	for h, tag := range map[*testbed.Host]string{co: "tag:nix-ci-coordinator", b1: "tag:nix-ci-builder"} {
		if err := h.JoinTailnet(bounded(t), testbed.Tailnet{Tags: []string{tag}}); err != nil {
			t.Fatal(err)
		}
	}
	ping := func(h *testbed.Host) {
		t.Helper()
		output(t, h, testbed.Root, "tailscale", "ping", "--c=5", "--timeout=5s", "--until-direct=true", b1.Name())
	}
	ping(co)
	if err := l.CutControl(bounded(t)); err != nil {
		t.Fatal(err)
	}
	ping(co)
	if err := b1.Run(bounded(t), "timeout", "1", "curl", "-sS", l.LoginServer()+"/key?v=1"); err == nil {
		t.Error("the control server answers through a cable that is cut")
	}
	if err := l.HealControl(bounded(t)); err != nil {
		t.Fatal(err)
	}
	output(t, b1, testbed.Root, "curl", "-sSf", "--retry", "5", "--max-time", "10", l.LoginServer()+"/key?v=1")
}
