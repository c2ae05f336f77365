package control_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"tailscale.com/client/tailscale/apitype"
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
