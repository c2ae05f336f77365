package tailnet_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"tailscale.com/tsnet"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/tailnet"
)

const (
	builderTag     = "tag:nix-ci-builder"
	coordinatorTag = "tag:nix-ci-coordinator"
)

// startControl starts a control server whose policy also lets people in.
func startControl(t *testing.T, grants ...control.Grant) *control.Server {
	t.Helper()
	policy, err := control.DefaultPolicy()
	if err != nil {
		t.Fatal(err)
	}
	policy.Grants = append(policy.Grants, grants...)
	s, err := control.Start(control.Config{Policy: &policy})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the control server: %v", err)
		}
	})
	return s
}

// node starts a node in this process.
func node(t *testing.T, s *control.Server, name string, tags ...string) (*tsnet.Server, *tailnet.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ts, err := s.Node(ctx, name, tags...)
	if err != nil {
		t.Fatal(err)
	}
	lc, err := ts.LocalClient()
	if err != nil {
		t.Fatal(err)
	}
	return ts, tailnet.FromLocal(lc)
}

// eventually waits for what the tailnet tells its nodes in its own time.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting until %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// whoServer answers every request with who the tailnet says is calling.
func whoServer(t *testing.T, c *tailnet.Client, listeners ...net.Listener) {
	t.Helper()
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, err := c.WhoIs(r.Context(), r.RemoteAddr)
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		json.NewEncoder(w).Encode(caller)
	})}
	for _, ln := range listeners {
		go srv.Serve(ln)
	}
	t.Cleanup(func() { srv.Close() })
}

func who(t *testing.T, hc *http.Client, url string) (tailnet.Caller, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := hc.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var caller tailnet.Caller
	if res.StatusCode == http.StatusOK {
		if err := json.Unmarshal(body, &caller); err != nil {
			t.Fatalf("%v in %s", err, body)
		}
	} else {
		t.Logf("%s: %s", res.Status, body)
	}
	return caller, res.StatusCode
}

// The tailnet, and not the caller, says who calls: what each kind of node looks
// like to a coordinator.
func TestIdentities(t *testing.T) {
	t.Parallel()
	raw := func(s string) []json.RawMessage { return []json.RawMessage{json.RawMessage(s)} }
	s := startControl(t,
		control.Grant{Src: []string{control.Person}, Dst: []string{coordinatorTag}, IP: []string{"*"},
			App: map[string][]json.RawMessage{string(tailnet.Capability): raw(`{"allow": ["stop", "read", "dance"]}`)}},
		control.Grant{Src: []string{"laptop"}, Dst: []string{coordinatorTag},
			App: map[string][]json.RawMessage{string(tailnet.Capability): {
				json.RawMessage(`{"allow": "stop"}`), // no list: grants nothing
				json.RawMessage(`{"allow": ["read"], "more": 1}`),
			}}},
	)
	coordTS, coord := node(t, s, "nix-coordinator-a1", coordinatorTag)
	ln, err := coordTS.Listen("tcp", ":8378")
	if err != nil {
		t.Fatal(err)
	}
	whoServer(t, coord, ln)
	self, err := coord.Self(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + self.Addr.String() + ":8378/"

	tests := []struct {
		hostname string
		tags     []string
		want     tailnet.Caller
	}{
		{"nix-builder-a1-ubuntu-24.04-1", []string{builderTag}, tailnet.Caller{
			Node: tailnet.Node{Name: "nix-builder-a1-ubuntu-24-04-1", FQDN: "nix-builder-a1-ubuntu-24-04-1." + s.Domain(), Tags: []string{builderTag}},
		}},
		{"nix-builder-a1-ubuntu-24.04-1", []string{builderTag}, tailnet.Caller{
			Node: tailnet.Node{Name: "nix-builder-a1-ubuntu-24-04-1-1", FQDN: "nix-builder-a1-ubuntu-24-04-1-1." + s.Domain(), Tags: []string{builderTag}},
		}},
		{"laptop", nil, tailnet.Caller{
			Node: tailnet.Node{Name: "laptop", FQDN: "laptop." + s.Domain()},
			User: control.Person, Caps: []string{tailnet.CapRead, tailnet.CapStop},
		}},
	}
	for _, tt := range tests {
		_, c := node(t, s, tt.hostname, tt.tags...)
		caller, status := who(t, &http.Client{Transport: c.Transport(0)}, url)
		if status != http.StatusOK {
			t.Errorf("%s: status %d", tt.hostname, status)
			continue
		}
		me, err := c.Self(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		tt.want.ID, tt.want.Addr = me.ID, me.Addr
		if diff := cmp.Diff(tt.want, caller, addrs, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.hostname, diff)
		}
	}

	own, err := coord.WhoIs(t.Context(), self.Addr.String()+":1234")
	if err != nil || !own.Self || own.ID != self.ID {
		t.Errorf("WhoIs of the own address = %+v, %v; want this node itself", own, err)
	}
	if _, err := coord.WhoIs(t.Context(), "100.100.1.1:1234"); !errors.Is(err, tailnet.ErrUnknownCaller) {
		t.Errorf("WhoIs of nobody = %v", err)
	}
	for _, bad := range []string{"", "@", "somewhere:1", "127.0.0.1"} {
		if _, err := coord.WhoIs(t.Context(), bad); err == nil {
			t.Errorf("WhoIs(%q) knew somebody", bad)
		}
	}
}

var addrs = cmpopts.EquateComparable(tailnet.Self{}.Addr)

func TestPeers(t *testing.T) {
	s := startControl(t)
	_, coord := node(t, s, "coord", coordinatorTag)
	oneTS, one := node(t, s, "one", builderTag)
	_, _ = node(t, s, "stranger") // the policy shows it to nobody

	var peers []tailnet.Peer
	eventually(t, "the builder is seen", func() bool {
		var err error
		if peers, err = coord.Peers(t.Context()); err != nil {
			t.Fatal(err)
		}
		return len(peers) == 1 && peers[0].Online
	})
	self, err := one.Self(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []tailnet.Peer{{Node: self.Node, Online: true}}
	if diff := cmp.Diff(want, peers, addrs, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("peers (-want +got):\n%s", diff)
	}
	if self.Name != "one" || self.FQDN != "one."+s.Domain() || !self.Addr.Is4() || !self.Userspace || len(self.IPs) != 2 {
		t.Errorf("self: %+v", self)
	}
	got, err := coord.Peer(t.Context(), self.ID)
	if err != nil || got.Name != "one" {
		t.Errorf("peer by id: %+v, %v", got, err)
	}
	if _, err := coord.Peer(t.Context(), "nobody"); !errors.Is(err, tailnet.ErrNoPeer) {
		t.Errorf("peer by a wrong id: %v", err)
	}

	oneTS.Close()
	eventually(t, "the builder is known to be gone", func() bool {
		peers, err := coord.Peers(t.Context())
		return err == nil && (len(peers) == 0 || !peers[0].Online)
	})
}

// A dial gives up with its context and leaves nothing open; one that succeeded
// outlives it.
func TestDialContext(t *testing.T) {
	s := startControl(t)
	coordTS, coord := node(t, s, "coord", coordinatorTag)
	_, builder := node(t, s, "one", builderTag)
	ln, err := coordTS.Listen("tcp", ":9")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		conn, err := ln.Accept()
		if err == nil {
			io.Copy(conn, conn)
		}
	}()
	self, err := coord.Self(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the builder sees the coordinator", func() bool {
		peers, err := builder.Peers(t.Context())
		return err == nil && len(peers) > 0
	})

	ctx, cancel := context.WithCancel(t.Context())
	conn, err := builder.Dial(ctx, "tcp", self.Addr.String()+":9")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cancel()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
		t.Errorf("the connection died with the context of its dial: %v", err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !isTimeout(err) {
		t.Errorf("a read past its deadline: %v", err)
	}

	hostLn, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hostLn.Close()
	stop := errors.New("enough")
	ctx, give := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, stop)
	defer give()
	begin := time.Now()
	if _, err := builder.Dial(ctx, "tcp", "100.100.1.1:9"); err == nil {
		t.Error("dialled nobody")
	}
	if _, err := builder.Dial(t.Context(), "tcp", hostLn.Addr().String()); !errors.Is(err, tailnet.ErrNoPeer) {
		t.Errorf("dialled over the host's own network: %v", err)
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("gave up after %v", took)
	}
	if _, err := builder.Dial(t.Context(), "tcp", self.Addr.String()+":http"); err == nil {
		t.Error("a port by name was taken")
	}
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}
