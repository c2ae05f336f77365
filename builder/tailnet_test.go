package builder_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/builder"
	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
	"github.com/Misaka13514/setup-distributed-nix-builds/httpapi"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	ts "github.com/Misaka13514/setup-distributed-nix-builds/internal/tailnet"
)

// Agents and coordinators of two runs on one real tailnet: they find each other
// without configuration, by tag, and a stop reaches its own run only.
func TestOverTailnet(t *testing.T) {
	server, err := control.Start(control.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	runs := []string{"owner/repo/1/1", "owner/repo/2/1"}
	names := []string{"nix-builder-a1-ubuntu-24.04-1", "nix-builder-a1-ubuntu-24.04-2"}

	var clusters []*coordinator.Cluster
	for _, run := range runs {
		cluster, _ := newCluster(t, coordinator.Config{ID: run, Builders: names, Label: ts.SanitizeHostname})
		clusters = append(clusters, cluster)
		node, err := server.Node(t.Context(), "nix-coordinator-a1", httpapi.DefaultCoordinatorTag)
		if err != nil {
			t.Fatal(err)
		}
		lc, err := node.LocalClient()
		if err != nil {
			t.Fatal(err)
		}
		client := ts.FromLocal(lc)
		self, err := client.Self(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		api, err := httpapi.New(httpapi.Config{
			Cluster: cluster, Hosts: []string{self.Addr.String()},
			WhoIs: func(ctx context.Context, remote string) (httpapi.Caller, error) {
				c, err := client.WhoIs(ctx, remote)
				return httpapi.Caller{ID: c.ID, Name: c.Name, FQDN: c.FQDN, User: c.User, Addr: c.Addr, Tags: c.Tags, Caps: c.Caps, Self: c.Self}, err
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		l, err := node.Listen("tcp", ":8378")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- api.Serve(ctx, l) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("serve: %v", err)
			}
		})
	}

	results := map[string]chan error{}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	for _, run := range runs {
		for _, name := range names {
			node, err := server.Node(t.Context(), name, httpapi.DefaultBuilderTag)
			if err != nil {
				t.Fatal(err)
			}
			lc, err := node.LocalClient()
			if err != nil {
				t.Fatal(err)
			}
			client := ts.FromLocal(lc)
			a, err := builder.New(builder.Config{
				Cluster: run, Name: name, Label: ts.SanitizeHostname,
				Coordinators: func(ctx context.Context) ([]builder.Candidate, error) {
					peers, err := client.Peers(ctx)
					var found []builder.Candidate
					for _, p := range peers {
						if slices.Contains(p.Tags, httpapi.DefaultCoordinatorTag) {
							found = append(found, builder.Candidate{Name: p.Name, Base: "http://" + p.Addr.String() + ":8378/v1"})
						}
					}
					return found, err
				},
				Transport: client.Transport(0),
				Offer:     func(context.Context) (apiclient.Offer, error) { return offer(), nil },
				Vitals:    func(context.Context) (apiclient.Vitals, error) { return apiclient.Vitals{}, nil },
			})
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			results[run+name] = done
			go func() { done <- a.Run(ctx) }()
		}
	}

	for i, cluster := range clusters {
		for view := cluster.View(); slices.ContainsFunc(view.Builders, expected); view = cluster.Await(ctx, view.Revision, 10*time.Second) {
			if ctx.Err() != nil {
				t.Fatalf("cluster %d: %s", i, states(cluster))
			}
		}
		begin := time.Now()
		report := stop(t, cluster)
		t.Logf("cluster %d stopped in %v", i, time.Since(begin))
		for _, b := range report.Builders {
			if !b.Left || b.After == nil {
				t.Errorf("cluster %d: %+v", i, b)
			}
			if err := <-results[runs[i]+b.Name]; err != nil {
				t.Error(err)
			}
		}
	}
}

func expected(b coordinator.Builder) bool { return b.State == coordinator.Expected }
