package control_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"tailscale.com/client/tailscale/apitype"
	"tailscale.com/tailcfg"
	"tailscale.com/tsnet"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
)

const (
	tagBuilder     = "tag:nix-ci-builder"
	tagCoordinator = "tag:nix-ci-coordinator"
	capability     = "github.com/misaka13514/cap/nix-builders"
)

func start(t *testing.T, cfg control.Config) *control.Server {
	t.Helper()
	s, err := control.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func join(t *testing.T, s *control.Server, hostname string, tags ...string) *tsnet.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	n, err := s.Node(ctx, hostname, tags...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// serveWhoIs answers each request on port 8080 of the node with what the node
// knows of the caller, and returns the URL.
func serveWhoIs(t *testing.T, n *tsnet.Server) string {
	t.Helper()
	lc, err := n.LocalClient()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := n.Listen("tcp", ":8080")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := lc.WhoIs(r.Context(), r.RemoteAddr)
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		json.NewEncoder(w).Encode(who)
	})}
	go srv.Serve(ln)
	t.Cleanup(func() { srv.Close() })
	ip, _ := n.TailscaleIPs()
	return "http://" + netip.AddrPortFrom(ip, 8080).String()
}

// whoAmI asks a server of serveWhoIs.
func whoAmI(ctx context.Context, from *tsnet.Server, url string) (*apitype.WhoIsResponse, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return nil, err
	}
	// A transport of its own: a kept-alive connection would outlive a change of
	// the policy.
	tr := &http.Transport{DialContext: from.Dial, DisableKeepAlives: true}
	res, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", res.Status, body)
	}
	who := new(apitype.WhoIsResponse)
	return who, json.Unmarshal(body, who)
}

// eventually waits until ok, for state that travels through other processes'
// goroutines; it fails the test after ten seconds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s: not %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func names(t *testing.T, s *control.Server) []string {
	t.Helper()
	nodes, err := s.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, n := range nodes {
		list = append(list, n.Name)
	}
	return list
}

func TestTaggedNodesTalk(t *testing.T) {
	s := start(t, control.Config{})
	co := join(t, s, "nix-coordinator-a1", tagCoordinator)
	b := join(t, s, "nix-builder-a1-ubuntu-24.04-1", tagBuilder)

	who, err := whoAmI(t.Context(), b, serveWhoIs(t, co))
	if err != nil {
		t.Fatal(err)
	}
	type identity struct {
		Name, Computed, Claim, User string
		Tags                        []string
	}
	want := identity{
		Name:     "nix-builder-a1-ubuntu-24-04-1.lab.ts.net.",
		Computed: "nix-builder-a1-ubuntu-24-04-1",
		Claim:    "nix-builder-a1-ubuntu-24.04-1",
		User:     "tagged-devices",
		Tags:     []string{tagBuilder},
	}
	got := identity{who.Node.Name, who.Node.ComputedName, who.Node.Hostinfo.Hostname(), who.UserProfile.LoginName, who.Node.Tags}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("WhoIs of the builder (-want +got):\n%s", diff)
	}

	// By MagicDNS name too.
	if _, err := whoAmI(t.Context(), b, "http://nix-coordinator-a1:8080"); err != nil {
		t.Errorf("by name: %v", err)
	}
}

func TestNamesAreUnique(t *testing.T) {
	s := start(t, control.Config{})
	for range 3 {
		join(t, s, "nix-builder-1.local", tagBuilder)
	}
	first, err := s.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"nix-builder-1", "nix-builder-1-1", "nix-builder-1-2"}, names(t, s)); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	// A name is free again when its node is gone; an id never is.
	if ok, err := s.RemoveNode(t.Context(), first[1].ID); !ok || err != nil {
		t.Fatalf("remove %s: %v, %v", first[1].ID, ok, err)
	}
	join(t, s, "nix-builder-1", tagBuilder)
	if diff := cmp.Diff([]string{"nix-builder-1", "nix-builder-1-2", "nix-builder-1-1"}, names(t, s)); diff != "" {
		t.Errorf("names after a removal (-want +got):\n%s", diff)
	}
	now, err := s.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range now {
		if n.ID == first[1].ID {
			t.Errorf("id %s was used again", n.ID)
		}
	}
}

func TestEphemeralNodesGo(t *testing.T) {
	t.Run("at once on logout", func(t *testing.T) {
		s := start(t, control.Config{EphemeralAfter: time.Hour})
		b := join(t, s, "b", tagBuilder)
		lc, err := b.LocalClient()
		if err != nil {
			t.Fatal(err)
		}
		if err := lc.Logout(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "removed", func() bool { return len(names(t, s)) == 0 })
	})
	t.Run("some time after their poll ended", func(t *testing.T) {
		s := start(t, control.Config{EphemeralAfter: 50 * time.Millisecond})
		b := join(t, s, "b", tagBuilder)
		if got := names(t, s); len(got) != 1 {
			t.Fatalf("before: %v", got)
		}
		b.Close()
		eventually(t, "removed", func() bool { return len(names(t, s)) == 0 })
	})
}

func TestPeersSeeWhoIsOnline(t *testing.T) {
	s := start(t, control.Config{})
	co := join(t, s, "co", tagCoordinator)
	join(t, s, "b", tagBuilder)
	lc, err := co.LocalClient()
	if err != nil {
		t.Fatal(err)
	}
	online := func() int {
		st, err := lc.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, p := range st.Peer {
			if p.Online {
				n++
			}
		}
		return n
	}
	eventually(t, "online", func() bool { return online() == 1 })
	nodes, err := s.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.RemoveNode(t.Context(), nodes[1].ID)
	eventually(t, "gone from the peers", func() bool { return online() == 0 })
}

func TestPolicyDeniesByDefault(t *testing.T) {
	s := start(t, control.Config{})
	co := join(t, s, "co", tagCoordinator)
	person := join(t, s, "laptop")
	url := serveWhoIs(t, co)

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := whoAmI(ctx, person, url); err == nil {
		t.Fatal("a node that no grant names reached the coordinator")
	}

	// Grants take effect while nodes run, and stop when they are taken away.
	granted, err := control.DefaultPolicy()
	if err != nil {
		t.Fatal(err)
	}
	closed := granted
	granted.Grants = append(slices.Clone(granted.Grants), control.Grant{
		Src: []string{control.Person}, Dst: []string{tagCoordinator}, IP: []string{"tcp:8080"},
	})
	if err := s.SetPolicy(t.Context(), granted); err != nil {
		t.Fatal(err)
	}
	eventually(t, "let in", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := whoAmI(ctx, person, url)
		return err == nil
	})
	ip, _ := co.TailscaleIPs()
	ctx, cancel = context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if c, err := person.Dial(ctx, "tcp", net.JoinHostPort(ip.String(), "8081")); err == nil {
		c.Close()
		t.Error("a port that the grant does not name is open")
	}

	if err := s.SetPolicy(t.Context(), closed); err != nil {
		t.Fatal(err)
	}
	eventually(t, "shut out", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := whoAmI(ctx, person, url)
		return err != nil
	})
}

func TestCapabilityShowsInWhoIs(t *testing.T) {
	p, err := control.DefaultPolicy()
	if err != nil {
		t.Fatal(err)
	}
	p.Grants = append(p.Grants,
		control.Grant{Src: []string{"autogroup:member"}, Dst: []string{tagCoordinator}, IP: []string{"*"}},
		control.Grant{
			Src: []string{"laptop"}, Dst: []string{tagCoordinator},
			App: map[string][]json.RawMessage{capability: {json.RawMessage(`{"allow":["read","stop"]}`)}},
		})
	s := start(t, control.Config{Policy: &p})
	co := join(t, s, "co", tagCoordinator)
	url := serveWhoIs(t, co)

	type grant struct {
		Allow []string `json:"allow"`
	}
	for _, tt := range []struct {
		hostname string
		want     []grant
	}{
		{"laptop", []grant{{[]string{"read", "stop"}}}},
		{"phone", nil},
	} {
		who, err := whoAmI(t.Context(), join(t, s, tt.hostname), url)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tailcfg.UnmarshalCapJSON[grant](who.CapMap, capability)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: capability (-want +got):\n%s", tt.hostname, diff)
		}
		if who.UserProfile.LoginName != control.Person {
			t.Errorf("%s: owner is %q", tt.hostname, who.UserProfile.LoginName)
		}
	}
}

func TestRefusedNodes(t *testing.T) {
	s := start(t, control.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := s.Node(ctx, "b", "tag:unknown"); err == nil || !strings.Contains(err.Error(), "start node b") {
		t.Errorf("a tag that the key does not give: %v", err)
	}
	if got := names(t, s); len(got) != 0 {
		t.Errorf("nodes: %v", got)
	}
}
