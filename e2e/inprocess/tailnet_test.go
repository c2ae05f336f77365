package inprocess_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"tailscale.com/tsnet"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
	"github.com/Misaka13514/setup-distributed-nix-builds/httpapi"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/tailnet"
)

const (
	clusterID = "owner/repo/1/1"
	port      = "8378"

	// Names as a workflow gives them: the tailnet will not take the dot.
	name1 = "nix-builder-a1-ubuntu-24.04-1"
	name2 = "nix-builder-a1-ubuntu-24.04-2"
)

// tailnetWorld is a tailnet with a coordinator on it.
type tailnetWorld struct {
	t       *testing.T
	control *control.Server
	cluster *coordinator.Cluster
	ip      string // the coordinator's tailnet address
	name    string // the coordinator's name
}

// start starts a tailnet with a coordinator for the builders name1 and name2. Everybody may
// reach its port; that does not make them anybody. grants add to the policy.
func start(t *testing.T, grants ...control.Grant) *tailnetWorld {
	t.Helper()
	policy, err := control.DefaultPolicy()
	if err != nil {
		t.Fatal(err)
	}
	policy.Grants = append(policy.Grants, control.Grant{
		Src: []string{"*"}, Dst: []string{httpapi.DefaultCoordinatorTag}, IP: []string{"tcp:" + port}})
	policy.Grants = append(policy.Grants, grants...)
	server, err := control.Start(control.Config{Policy: &policy})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("close the control server: %v", err)
		}
	})
	w := &tailnetWorld{t: t, control: server}
	w.serve(w.node("nix-coordinator-a1", httpapi.DefaultCoordinatorTag))
	return w
}

func (w *tailnetWorld) node(name string, tags ...string) *tsnet.Server {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	node, err := w.control.Node(ctx, name, tags...)
	if err != nil {
		w.t.Fatal(err)
	}
	return node
}

// serve serves a cluster on the node.
func (w *tailnetWorld) serve(node *tsnet.Server) {
	w.t.Helper()
	cluster, err := coordinator.New(coordinator.Config{
		ID: clusterID, Builders: []string{name1, name2}, Label: tailnet.SanitizeHostname})
	if err != nil {
		w.t.Fatal(err)
	}
	lc, err := node.LocalClient()
	if err != nil {
		w.t.Fatal(err)
	}
	client := tailnet.FromLocal(lc)
	self, err := client.Self(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	server, err := httpapi.New(httpapi.Config{
		Cluster: cluster,
		Hosts:   []string{self.Addr.String(), self.Name, self.FQDN},
		WhoIs: func(ctx context.Context, remote string) (httpapi.Caller, error) {
			c, err := client.WhoIs(ctx, remote)
			return httpapi.Caller{ID: c.ID, Name: c.Name, FQDN: c.FQDN, User: c.User, Addr: c.Addr,
				Tags: c.Tags, Caps: c.Caps, Self: c.Self}, err
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	listener, err := node.Listen("tcp", ":"+port)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = cluster.Run(ctx) })
	running.Go(func() {
		if err := server.Serve(ctx, listener); err != nil {
			w.t.Errorf("Serve: %v", err)
		}
	})
	w.t.Cleanup(func() { cancel(); running.Wait() })
	w.cluster, w.ip, w.name = cluster, self.Addr.String(), self.Name
}

func (w *tailnetWorld) api(from *tsnet.Server) *apiclient.API {
	w.t.Helper()
	api, err := apiclient.New("http://"+net.JoinHostPort(w.ip, port)+httpapi.Base, from.HTTPClient())
	if err != nil {
		w.t.Fatal(err)
	}
	return api
}

func checkIn(name string) apiclient.CheckIn {
	return apiclient.CheckIn{Cluster: clusterID, Name: name, Instance: uuid.New(), Offer: apiclient.Offer{
		Systems: []string{"x86_64-linux"}, Cores: 4, MemoryBytes: 16 << 30, StoreFreeBytes: 1 << 30,
		Features: []string{}, NixVersion: "2.34.8", StoreProgram: "/usr/bin/nix-daemon"}}
}

// Who may do what, by what the tailnet knows of them.
func TestWhoMayDoWhatOnATailnet(t *testing.T) {
	may := func(who string, allow string) control.Grant {
		return control.Grant{Src: []string{who}, Dst: []string{httpapi.DefaultCoordinatorTag},
			App: map[string][]json.RawMessage{string(tailnet.Capability): {json.RawMessage(`{"allow": ` + allow + `}`)}}}
	}
	w := start(t, may("reader", `["read"]`), may("stopper", `["stop"]`), may("confused", `"stop"`))
	builder := httpapi.DefaultBuilderTag
	b1, b2 := w.node(name1, builder), w.node(name2, builder)

	api1 := w.api(b1)
	ticket, first, err := api1.CheckIn(t.Context(), checkIn(name1))
	if err != nil || !first || ticket.Name != name1 {
		t.Fatalf("b1 checks in: %+v, %v", ticket, err)
	}
	forbidden := func(what string, err error, want problem.Slug) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %s", what, err, want)
		}
	}
	_, _, err = w.api(b2).CheckIn(t.Context(), checkIn(name1))
	forbidden("b2 checks in as b1", err, problem.NotYours)
	_, err = w.api(b2).AwaitTeardown(t.Context(), ticket.Id, 0)
	forbidden("b2 polls for b1", err, problem.NotYours)
	forbidden("b2 departs for b1", w.api(b2).Depart(t.Context(), ticket.Id,
		apiclient.Departure{Reason: apiclient.DepartureReasonFailed}), problem.NotYours)
	_, err = api1.Stop(t.Context(), 0)
	forbidden("b1 stops the cluster", err, problem.Forbidden)

	for _, caller := range []struct {
		name       string
		tags       []string
		read, stop bool
	}{
		{"other-coordinator", []string{httpapi.DefaultCoordinatorTag}, true, false},
		{"laptop", nil, false, false},
		{"confused", nil, false, false},
		{"reader", nil, true, false},
		{"stopper", nil, false, true}, // the last one: it does stop
	} {
		api := w.api(w.node(caller.name, caller.tags...))
		if err := api.Health(t.Context()); err != nil {
			t.Errorf("%s: %v", caller.name, err)
		}
		_, _, err := api.CheckIn(t.Context(), checkIn(name1))
		forbidden(caller.name+" checks in as b1", err, problem.Forbidden)
		if _, err := api.Cluster(t.Context()); caller.read != (err == nil) || !caller.read && !errors.Is(err, problem.Forbidden) {
			t.Errorf("%s reads: %v", caller.name, err)
		}
		_, err = api.Stop(t.Context(), 0)
		if want := problem.Forbidden; caller.stop {
			want = problem.BuildersRemain // b1 is still there
			forbidden(caller.name+" stops", err, want)
		} else {
			forbidden(caller.name+" stops", err, want)
		}
	}
	if w.cluster.View().Phase != coordinator.Stopping {
		t.Errorf("the cluster is %s", w.cluster.View().Phase)
	}
}

// Builders under names that the tailnet changed live and leave.
func TestLifeOnATailnet(t *testing.T) {
	w := start(t)
	stale := w.node(name1, httpapi.DefaultBuilderTag) // has the name from an earlier run
	var agents sync.WaitGroup
	for _, name := range []string{name1, name2} {
		api := w.api(w.node(name, httpapi.DefaultBuilderTag))
		ticket, _, err := api.CheckIn(t.Context(), checkIn(name))
		if err != nil {
			t.Fatal(err)
		}
		agents.Go(func() {
			for {
				teardown, err := api.AwaitTeardown(t.Context(), ticket.Id, 10*time.Second)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				if teardown != nil {
					break
				}
			}
			if err := api.Depart(t.Context(), ticket.Id, apiclient.Departure{Reason: apiclient.DepartureReasonTeardown}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	if got := w.cluster.View().Builders[0].Node.Name; got != "nix-builder-a1-ubuntu-24-04-1-1" {
		t.Errorf("b1's node is called %q", got)
	}
	// Its name is taken: whoever else is called so has to wait.
	if _, _, err := w.api(stale).CheckIn(t.Context(), checkIn(name1)); !errors.Is(err, problem.NameHeld) {
		t.Errorf("another node of the same name: %v", err)
	}
	begin := time.Now()
	report, err := w.cluster.Stop(t.Context(), coordinator.StopRequest{By: "a test", Wait: 20 * time.Second})
	if err != nil {
		t.Errorf("stop: %v", err)
	}
	agents.Wait()
	t.Logf("released after %v", time.Since(begin))
	for _, b := range report.Builders {
		if !b.Left || b.After == nil {
			t.Errorf("in the report: %+v", b)
		}
	}
}

// The coordinator goes by its name and its address, and by nothing else.
func TestNamesOfACoordinator(t *testing.T) {
	w := start(t)
	client := w.node("other-coordinator", httpapi.DefaultCoordinatorTag).HTTPClient()
	get := func(host string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+net.JoinHostPort(w.ip, port)+"/v1/cluster", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		return res.StatusCode
	}
	for host, want := range map[string]int{
		"":                             http.StatusOK,
		w.name + ":" + port:            http.StatusOK,
		w.name + ".lab.ts.net:" + port: http.StatusOK,
		"evil.test:" + port:            http.StatusMisdirectedRequest,
		"localhost:" + port:            http.StatusMisdirectedRequest,
	} {
		if got := get(host); got != want {
			t.Errorf("Host %q: status %d, want %d", host, got, want)
		}
	}
}
