package builder_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// Something else on the builder's host has used up what the node may ask for. The agent is
// refused for a moment, tries again, and is there and leaves as ever.
func TestRefusedForDoingTooMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTailnet()
		cluster, _ := newCluster(t, coordinator.Config{Builders: []string{"b1"}})
		n.coordinate(t, home, cluster)
		transport := n.transport(addrOf("b1"))
		defer transport.CloseIdleConnections()
		api, err := apiclient.New("http://"+home+"/v1", &http.Client{Transport: transport})
		if err != nil {
			t.Fatal(err)
		}
		// exhaust calls until it is refused, and does not wait for the answer.
		exhaust := func(call func(context.Context) error) {
			t.Helper()
			for range 1000 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
				err := call(ctx)
				cancel()
				if errors.Is(err, context.DeadlineExceeded) {
					return
				}
			}
			t.Fatal("it may call as often as it likes")
		}
		exhaust(func(ctx context.Context) error {
			_, _, err := api.CheckIn(ctx, apiclient.CheckIn{Cluster: "another", Name: "b1", Offer: offer()})
			return err
		})

		a := n.newAgent("b1", home).start(t)
		time.Sleep(10 * time.Second)
		if synctest.Wait(); states(cluster) != "b1 joined" {
			t.Fatalf("10 s later: %s; it said:\n%s", states(cluster), a.out.String())
		}
		for range 2 { // in the middle of a poll, and just before it is told to leave
			exhaust(func(ctx context.Context) error { _, err := api.Cluster(ctx); return err })
			time.Sleep(coordinator.DefaultLease / 3)
		}
		exhaust(func(ctx context.Context) error { _, err := api.Cluster(ctx); return err })
		begin := time.Now()
		if report := stop(t, cluster); !report.Builders[0].Left {
			t.Errorf("released: %+v", report.Builders[0])
		}
		if _, err := a.wait(); err != nil || !strings.Contains(a.out.String(), "left the cluster") {
			t.Errorf("it ended with %v and said:\n%s", err, a.out.String())
		}
		if took := time.Since(begin); took < time.Second || took > 3*time.Second {
			t.Errorf("it took %v to leave, want the second that a refusal takes and little more", took)
		}
	})
}
