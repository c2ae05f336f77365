package control_test

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"tailscale.com/ipn/store/mem"
	"tailscale.com/net/netns"
	"tailscale.com/tsnet"
	"tailscale.com/types/logger"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
)

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

// Whoever is thrown out learns of it, rather than polling for ever.
func TestRemovedNodeWantsToLogIn(t *testing.T) {
	s := start(t, control.Config{})
	b := join(t, s, "b", tagBuilder)
	lc, err := b.LocalClient()
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := s.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := s.RemoveNode(t.Context(), nodes[0].ID); !ok || err != nil {
		t.Fatalf("remove: %v, %v", ok, err)
	}
	eventually(t, "asking for a login", func() bool {
		st, err := lc.StatusWithoutPeers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return st.BackendState == "NeedsLogin"
	})
}

func TestAdminOverSocket(t *testing.T) {
	s := start(t, control.Config{})
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "admin.sock"))
	if err != nil {
		t.Fatal(err)
	}
	admin := &http.Server{Handler: s.AdminHandler()}
	go admin.Serve(ln)
	t.Cleanup(func() { admin.Close() })
	c := control.Dial(ln.Addr().String())
	join(t, s, "b", tagBuilder)

	want, err := s.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" || len(got) != 1 {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}

	p, err := c.Policy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.Grants = append(p.Grants, control.Grant{Src: []string{"*"}, Dst: []string{"*"}, IP: []string{"80-90"}})
	if err := c.SetPolicy(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	now, err := s.Policy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p, now); diff != "" {
		t.Errorf("policy (-want +got):\n%s", diff)
	}
	p.Grants[0].IP = []string{"nonsense"}
	if err := c.SetPolicy(t.Context(), p); err == nil || !strings.Contains(err.Error(), `grants[0]: ip "nonsense"`) {
		t.Errorf("a policy that can't be: %v", err)
	}

	for _, want := range []bool{true, false} {
		if found, err := c.RemoveNode(t.Context(), got[0].ID); found != want || err != nil {
			t.Errorf("remove: %v, %v, want %v", found, err, want)
		}
	}
}

// A node may turn the secret of an OAuth client into an auth key of its own, as
// users of the real service are told to.
func TestOAuthClient(t *testing.T) {
	s := start(t, control.Config{})
	netns.SetEnabled(false) // as Node does
	up := func(authKey string, tags ...string) error {
		n := &tsnet.Server{
			Dir: t.TempDir(), Store: new(mem.Store), Hostname: "b", ControlURL: s.URL(), Ephemeral: true,
			AuthKey: authKey, AdvertiseTags: tags, Logf: logger.Discard, UserLogf: logger.Discard,
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := n.Up(ctx)
		if err == nil { // one that never started can't be closed
			t.Cleanup(func() { n.Close() })
		}
		return err
	}
	if err := up(control.OAuthKey(s.URL()), tagBuilder); err != nil {
		t.Fatal(err)
	}
	nodes, err := s.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(nodes) != 1 || !nodes[0].Ephemeral || !slices.Equal(nodes[0].Tags, []string{tagBuilder}) {
		t.Errorf("nodes: %+v, want one ephemeral node with %s", nodes, tagBuilder)
	}
	wrong := strings.Replace(control.OAuthKey(s.URL()), "secret", "guess", 1)
	if err := up(wrong, tagBuilder); err == nil || !strings.Contains(err.Error(), "API token invalid") {
		t.Errorf("a wrong secret: %v", err)
	}
	if err := up(control.OAuthKey(s.URL()), "tag:other"); err == nil || !strings.Contains(err.Error(), "not permitted") {
		t.Errorf("a tag that is not the client's: %v", err)
	}
}
