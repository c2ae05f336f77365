package builder_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/builder"
	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
)

func checkIn(name string) coordinator.CheckIn {
	o := offer()
	return coordinator.CheckIn{Cluster: clusterID, Name: name, Instance: uuid.New(), Offer: coordinator.Offer{
		Systems: o.Systems, Cores: o.Cores, MemoryBytes: o.MemoryBytes, StoreFreeBytes: o.StoreFreeBytes,
		Features: o.Features, NixVersion: o.NixVersion, StoreProgram: o.StoreProgram,
	}}
}

// Something that says it is our coordinator and then answers a check-in with what
// can't be: it is not believed, it is asked again at a bounded rate, and the report
// tells what it said.
func TestBadTickets(t *testing.T) {
	const good = `{"id": "6f2c6f0a-58cf-4f0f-9f3f-0d6c1f3b7a01", "cluster": "owner/repo/123/1", "name": "b1", "phase": "ready", "lease_seconds": 45, "poll_seconds": 15}`
	with := func(old, new string) string {
		if !strings.Contains(good, old) {
			panic(old)
		}
		return strings.Replace(good, old, new, 1)
	}
	tests := []struct {
		name, body, want string
	}{
		{"empty", ``, "understand the answer"},
		{"not JSON", `<html>`, "understand the answer"},
		{"cut off", good[:40], "understand the answer"},
		{"null", `null`, "no id"},
		{"no members", `{}`, "no id"},
		{"no id", with("6f2c6f0a-58cf-4f0f-9f3f-0d6c1f3b7a01", "00000000-0000-0000-0000-000000000000"), "no id"},
		{"an id that is none", with("6f2c6f0a-", "nonsense-"), "understand the answer"},
		{"another cluster", with("owner/repo/123/1", "owner/repo/999/1"), "another cluster, owner/repo/999/1"},
		{"another builder", with(`"b1"`, `"b2"`), "another builder, b2"},
		{"another phase", with(`"ready"`, `"dancing"`), "dancing"},
		{"no lease", with("45", "0"), "lease of 0 seconds"},
		{"negative lease", with("45", "-45"), "lease of -45"},
		{"endless lease", with("45", "1e308"), "lease of 1e+308"},
		{"a day's lease", with("45", "86400"), "lease of 86400"},
		{"no number", with("45", `"NaN"`), "understand the answer"},
		{"polls as long as the lease", with("15", "45"), "polls of 45"},
		{"no polls", with("15", "0"), "polls of 0"},
		{"negative polls", with("15", "-1"), "polls of -1"},
		{"huge", `{"name": "` + strings.Repeat("x", 17<<20) + `"}`, "over 16 MiB"},
		{"commands for the job's log", with(`"b1"`, `"\n::set-env name=PATH::/evil"`), "another builder, ::set-env"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newTailnet()
				var requests atomic.Int32
				n.handle(t, home, func(w http.ResponseWriter, r *http.Request) {
					requests.Add(1)
					w.Header().Set("Content-Type", "application/json")
					if r.Method == http.MethodGet {
						fmt.Fprint(w, `{"id": "owner/repo/123/1", "phase": "ready", "builders": [{"name": "b1"}]}`)
						return
					}
					fmt.Fprint(w, tt.body)
				})
				a := n.newAgent("b1", home)
				a.Timeout = time.Minute
				took, err := a.start(t).wait()
				unclaimed, ok := errors.AsType[*builder.UnclaimedError](err)
				if !ok || took != time.Minute {
					t.Fatalf("%v after %v", err, took)
				}
				why := unclaimed.Seen["coordinator-100 (http://100.64.0.100:8378/v1)"]
				if !strings.Contains(why, tt.want) || strings.ContainsAny(why, "\r\n") {
					t.Errorf("seen %q, want %q in it", why, tt.want)
				}
				if r := requests.Load(); r > 100 {
					t.Errorf("%d requests in a minute", r)
				}
			})
		})
	}
}

// A coordinator that goes bad after the claim.
func TestBadPolls(t *testing.T) {
	tests := []struct {
		name   string
		poll   http.HandlerFunc
		leaves bool // within two leases, because it says nothing that counts
	}{
		{"a teardown of nothing", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{}`)
		}, true},
		{"a teardown that is none", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "leave!") }, true},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://100.64.0.66:8378/", http.StatusTemporaryRedirect)
		}, true},
		{"nothing yet, at once", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newTailnet()
				cluster, _ := newCluster(t, coordinator.Config{Builders: []string{"b1"}})
				leave := n.coordinate(t, home, cluster)
				a := n.newAgent("b1", home).start(t)
				time.Sleep(2 * time.Second)
				leave()
				var requests atomic.Int32
				n.handle(t, home, func(w http.ResponseWriter, r *http.Request) {
					if strings.HasSuffix(r.URL.Path, "/teardown") {
						requests.Add(1)
						tt.poll(w, r)
						return
					}
					http.NotFound(w, r)
				})
				time.Sleep(85 * time.Second)
				if !a.running() {
					took, err := a.wait()
					t.Fatalf("it left: %v after %v", err, took)
				}
				time.Sleep(10 * time.Second)
				if a.running() == tt.leaves {
					t.Errorf("running: %t", !tt.leaves)
				}
				if r := requests.Load(); r > 95*5 {
					t.Errorf("%d requests in 95 s", r)
				}
			})
		})
	}
}

// What the coordinator gives as a reason comes out as one plain line.
func TestReasonIsCleaned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTailnet()
		cluster, _ := newCluster(t, coordinator.Config{Builders: []string{"b1"}})
		n.coordinate(t, home, cluster)
		a := n.newAgent("b1", home).start(t)
		time.Sleep(time.Second)
		if _, err := cluster.Stop(t.Context(), coordinator.StopRequest{
			By: "somebody\r\n::error::\x1b[31m\u2028" + strings.Repeat("x", 2000), Wait: time.Second,
		}); err != nil {
			t.Error(err)
		}
		if _, err := a.wait(); err != nil {
			t.Error(err)
		}
		for line := range strings.Lines(a.out.String()) {
			if strings.HasPrefix(line, "::") || strings.ContainsAny(line, "\r\x1b\u2028") || len(line) > 400 {
				t.Errorf("%q", line)
			}
		}
	})
}
