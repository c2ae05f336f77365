package fleet_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"tailscale.com/tsnet"

	"github.com/Misaka13514/setup-distributed-nix-builds/docs"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
)

const (
	tagBuilder     = "tag:nix-ci-builder"
	tagCoordinator = "tag:nix-ci-coordinator"
)

// Who reaches whom, and where, with the policy as it is and with each grant taken away: each
// opens its doors, and nothing else does.
func TestPolicyOpensItsDoorsAndNoMore(t *testing.T) {
	policy, err := fleet.Policy()
	if err != nil {
		t.Fatal(err)
	}
	const (
		checkIn  = "builder-1 to coordinator:8378"
		checkIn2 = "builder-2 to coordinator:8378"
		ssh      = "coordinator to builder-1:22"
		ssh2     = "coordinator to builder-2:22"
		store    = "coordinator to builder-1:8379"
		store2   = "coordinator to builder-2:8379"
		peer     = "builder-1 to builder-2:8379"
		peer2    = "builder-2 to builder-1:8379"
	)
	for _, tt := range []struct {
		name    string
		without int // the grant to take away; -1: none
		want    []string
	}{
		{"the policy", -1, []string{peer, checkIn, peer2, checkIn2, ssh, store, ssh2, store2}},
		{"without the grant to the API", 0, []string{peer, peer2, ssh, store, ssh2, store2}},
		{"without the grant to the stores", 1, []string{peer, checkIn, peer2, checkIn2}},
		{"without the grant among builders", 2, []string{checkIn, checkIn2, ssh, store, ssh2, store2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := policy
			if p.Grants = slices.Clone(p.Grants); tt.without >= 0 {
				p.Grants = slices.Delete(p.Grants, tt.without, tt.without+1)
			}
			if diff := cmp.Diff(tt.want, doors(t, p, tt.want)); diff != "" {
				t.Errorf("open doors (-want +got):\n%s", diff)
			}
		})
	}
}

// doors starts a tailnet of two builders, a coordinator and a person, and lets each knock at
// the others' ports. Doors of want get the time that a busy machine takes; for the others a
// second has to do, since a packet that is dropped says nothing.
func doors(t *testing.T, policy control.Policy, want []string) []string {
	t.Helper()
	server, err := control.Start(control.Config{Policy: &policy})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("close the control server: %v", err)
		}
	})
	ports := []string{"22", "80", "8378", "8379"}
	nodes := map[string]*tsnet.Server{}
	for name, tags := range map[string][]string{
		"builder-1": {tagBuilder}, "builder-2": {tagBuilder}, "coordinator": {tagCoordinator}, "laptop": nil,
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		n, err := server.Node(ctx, name, tags...)
		if err != nil {
			t.Fatal(err)
		}
		nodes[name] = n
		for _, port := range ports {
			answer(t, n, port)
		}
	}
	var mu sync.Mutex
	var open []string // guarded by mu
	knock := func(from, to, port string, patience time.Duration) {
		ip, _ := nodes[to].TailscaleIPs()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if reached(ctx, nodes[from], net.JoinHostPort(ip.String(), port)) {
			mu.Lock()
			defer mu.Unlock()
			open = append(open, fmt.Sprintf("%s to %s:%s", from, to, port))
		}
	}
	var knocking sync.WaitGroup
	each := func(ask func(door string) bool, patience time.Duration) {
		for from := range nodes {
			for to := range nodes {
				for _, port := range ports {
					if from != to && ask(fmt.Sprintf("%s to %s:%s", from, to, port)) {
						knocking.Go(func() { knock(from, to, port, patience) })
					}
				}
			}
		}
		knocking.Wait()
	}
	// When these are open the nodes know each other: what stays closed then is closed.
	each(func(door string) bool { return slices.Contains(want, door) }, time.Minute)
	each(func(door string) bool { return !slices.Contains(want, door) }, time.Second)
	slices.Sort(open)
	return open
}

// answer greets whoever reaches this port of the node.
func answer(t *testing.T, n *tsnet.Server, port string) {
	t.Helper()
	l, err := n.Listen("tcp", ":"+port)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			_, _ = c.Write([]byte("!")) // the caller says what came of it
			c.Close()
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
}

// reached reports whether somebody answers there, and tries until ctx ends.
func reached(ctx context.Context, from *tsnet.Server, addr string) bool {
	for ctx.Err() == nil {
		if greeted(ctx, from, addr) {
			return true
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond): // a netmap on its way
		}
	}
	return false
}

// greeted reports whether somebody answers there soon. What a node that does not know its
// peer yet has dropped is better sent anew than waited for.
func greeted(ctx context.Context, from *tsnet.Server, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	c, err := from.Dial(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	_ = c.SetReadDeadline(deadline)
	n, _ := c.Read(make([]byte, 1))
	return n == 1
}

// An administrator makes keys, and an OAuth client that has both tags hands out either: that
// takes both owners. Who logs in over SSH is root alone.
func TestPolicyNamesNobodyElse(t *testing.T) {
	policy, err := fleet.Policy()
	if err != nil {
		t.Fatal(err)
	}
	want := control.Policy{
		TagOwners: map[string][]string{
			tagBuilder:     {"autogroup:admin", tagBuilder},
			tagCoordinator: {"autogroup:admin", tagCoordinator},
		},
		Grants: []control.Grant{
			{Src: []string{tagBuilder}, Dst: []string{tagCoordinator}, IP: []string{"tcp:8378"}},
			{Src: []string{tagCoordinator}, Dst: []string{tagBuilder}, IP: []string{"tcp:8379", "tcp:22"}},
			{Src: []string{tagBuilder}, Dst: []string{tagBuilder}, IP: []string{"tcp:8379"}},
		},
		SSH: []control.SSHRule{{Src: []string{tagCoordinator}, Dst: []string{tagBuilder}, Users: []string{"root"}, Action: "accept"}},
	}
	if diff := cmp.Diff(want, policy); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The grant for people, which the file holds as a comment, is one once it is uncommented.
func TestPolicyCanLetPeopleIn(t *testing.T) {
	var b strings.Builder
	in := false
	for line := range strings.Lines(string(docs.TailnetPolicy)) {
		text, comment := strings.CutPrefix(strings.TrimSpace(line), "// ")
		in = comment && (in || text == "{")
		if in {
			line = text + "\n"
		}
		b.WriteString(line)
	}
	policy, err := control.ParsePolicy([]byte(b.String()))
	if err != nil {
		t.Fatalf("%v:\n%s", err, b.String())
	}
	if len(policy.Grants) != 4 || len(policy.Grants[3].App) != 1 {
		t.Errorf("the grant for people is not in it:\n%s", b.String())
	}
}
