package control_test

import (
	"context"
	"encoding/json"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"tailscale.com/tailcfg"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
)

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
