package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/tailnet"
)

// A person has a cluster and nothing but curl. On the coordinator's host they read it,
// follow it and stop it; from a builder, and from a laptop on the tailnet, they can do what
// the tailnet's policy lets them and nothing else.
func TestCurl(t *testing.T) {
	t.Parallel() // it mostly waits
	lab := startLab(t, testbed.Config{Builders: 3})
	laptop, err := lab.Boot(t.Context(), testbed.HostSpec{Name: "laptop"})
	if err != nil {
		t.Fatal(err)
	}
	if err := laptop.JoinTailnet(t.Context(), testbed.Tailnet{}); err != nil { // a person's
		t.Fatal(err)
	}
	c := newCluster(t, lab, "curl", 3)
	c.up()
	base := exported(t, c.step)
	own := caller{lab.Host(c.Coordinator), base}
	builder := caller{lab.Host("builder-1"), base}
	person := caller{laptop, base}

	// other is a builder that must come to no harm.
	other, _ := builderOf(decode[apiclient.Cluster](t, own.get(t, "/cluster").ok(t, "application/json")), c.NameOf("builder-2"))
	unharmed := func(t *testing.T) {
		t.Helper()
		now := decode[apiclient.Cluster](t, own.get(t, "/cluster").ok(t, "application/json"))
		if b, _ := builderOf(now, other.Name); b.State != "ready" || b.Id == nil || *b.Id != *other.Id {
			t.Errorf("builder-2 has come to harm: %s", show(b))
		}
	}
	poll, departure := "/builders/"+other.Id.String()+"/teardown?wait=0", "/builders/"+other.Id.String()+"/departure"

	t.Run("read", func(t *testing.T) {
		now := decode[apiclient.Cluster](t, own.get(t, "/cluster").ok(t, "application/json"))
		if now.Id != c.Cluster() || now.Phase != "ready" || len(now.Builders) != 3 || now.Quorum != 3 {
			t.Errorf("the cluster is %s", show(now))
		}
		for i, b := range now.Builders {
			if b.Name != c.NameOf(c.Builders[i]) || b.NodeName == nil || *b.NodeName != c.LabelOf(c.Builders[i]) || b.Offer == nil || b.Address == nil {
				t.Errorf("%s is %s", c.Builders[i], show(b))
			}
		}
		decode[apiclient.Health](t, own.get(t, "/healthz").ok(t, "application/json"))
		if m := string(own.get(t, "/metrics").ok(t, "text/plain")); !strings.Contains(m, `nix_builders_builders{state="ready"} 3`) {
			t.Errorf("the metrics don't tell of three ready builders:\n%s", m)
		}
		contract, err := os.ReadFile("../openapi.yaml")
		if err != nil {
			t.Fatal(err)
		}
		if string(own.get(t, "/openapi.yaml").ok(t, "application/yaml")) != string(contract) {
			t.Error("/openapi.yaml is not the contract")
		}
		own.get(t, "/clusters").refused(t, problem.NotFound)
		own.get(t, "/stop-nix-builders").refused(t, problem.MethodNotAllowed)
		own.get(t, "/cluster?wait=soon").refused(t, problem.Malformed)
	})

	t.Run("a builder acts for itself only", func(t *testing.T) {
		builder.get(t, "/cluster").ok(t, "application/json")
		builder.get(t, "/stop-nix-builders", "-X", "POST").refused(t, problem.Forbidden)
		builder.get(t, "/stop-nix-builders?builder="+other.Name, "-X", "POST").refused(t, problem.Forbidden)
		builder.get(t, poll).refused(t, problem.NotYours)
		builder.post(t, departure, `{"reason": "cancelled"}`).refused(t, problem.NotYours)
		builder.post(t, "/check-ins", checkIn(c.Cluster(), other.Name)).refused(t, problem.NotYours)
		builder.post(t, "/check-ins", checkIn(c.Cluster(), "nix-builder-nobody")).refused(t, problem.NotExpected)
		builder.post(t, "/check-ins", checkIn("acme/site/other/1", c.NameOf("builder-1"))).refused(t, problem.WrongCluster)
		unharmed(t)
	})

	t.Run("the coordinator is no builder", func(t *testing.T) {
		own.post(t, "/check-ins", checkIn(c.Cluster(), other.Name)).refused(t, problem.Forbidden)
		own.get(t, poll).refused(t, problem.Forbidden)
		own.post(t, departure, `{"reason": "cancelled"}`).refused(t, problem.Forbidden)
		unharmed(t)
	})

	t.Run("a person whom the policy grants nothing", func(t *testing.T) {
		if a := person.get(t, "/healthz", "--max-time", "2"); a.status != 0 {
			t.Errorf("the policy lets nobody through, but %s is answered %d: %s", a.call, a.status, a.body)
		}
		grant(t, lab, control.Grant{Src: []string{"laptop"}, Dst: []string{"tag:nix-ci-coordinator"}, IP: []string{"tcp:8378"}})
		eventually(t, "let through by the new policy", func() bool {
			return person.get(t, "/healthz", "--max-time", "2").status == 200
		})
		for _, path := range []string{"/cluster", "/events", "/metrics", "/openapi.yaml", poll} {
			person.get(t, path).refused(t, problem.Forbidden)
		}
		person.get(t, "/stop-nix-builders", "-X", "POST").refused(t, problem.Forbidden)
		person.post(t, "/check-ins", checkIn(c.Cluster(), other.Name)).refused(t, problem.Forbidden)
		person.post(t, departure, `{"reason": "cancelled"}`).refused(t, problem.Forbidden)
		unharmed(t)
	})

	t.Run("a person who may read", func(t *testing.T) {
		grant(t, lab, capability("laptop", "read"))
		eventually(t, "let read by the new policy", func() bool { return person.get(t, "/cluster").status == 200 })
		decode[apiclient.Cluster](t, person.get(t, "/cluster").ok(t, "application/json"))
		person.get(t, "/metrics").ok(t, "text/plain")
		person.get(t, "/openapi.yaml").ok(t, "application/yaml")
		s := person.listen(t)
		if e, err := s.next(); err != nil || e.kind != "snapshot" {
			t.Errorf("the stream begins with %+v, %v; want a snapshot", e, err)
		}
		s.close()
		person.get(t, "/stop-nix-builders", "-X", "POST").refused(t, problem.Forbidden)
		person.post(t, "/check-ins", checkIn(c.Cluster(), other.Name)).refused(t, problem.Forbidden)
		unharmed(t)
	})

	t.Run("a person who may stop", func(t *testing.T) {
		grant(t, lab, capability("laptop", "read", "stop"))
		name := c.NameOf("builder-3")
		var a answer
		eventually(t, "let stop by the new policy", func() bool {
			a = person.get(t, "/stop-nix-builders?builder="+name, "-X", "POST")
			return a.status != 403
		})
		report := decode[apiclient.StopReport](t, a.ok(t, "application/json"))
		if len(report.Builders) != 1 || report.Builders[0].Name != name || !report.Builders[0].Left {
			t.Errorf("the report is %s", show(report))
		}
		c.wantExit(c.builders["builder-3"], 0)
		unharmed(t)
	})

	// From here on someone watches.
	now := decode[apiclient.Cluster](t, own.get(t, "/cluster").ok(t, "application/json"))
	events := own.listen(t, "-H", "Last-Event-ID: 0")

	t.Run("wait for a change", func(t *testing.T) {
		same := decode[apiclient.Cluster](t, own.get(t, fmt.Sprintf("/cluster?wait=1&after=%d", now.Revision)).ok(t, "application/json"))
		if same.Revision != now.Revision {
			t.Errorf("the cluster changed from revision %d to %d, and nobody did anything", now.Revision, same.Revision)
		}
		waiting := c.start(testbed.Runner, "curl", "-fsS", fmt.Sprintf("%s/cluster?wait=50&after=%d", base, now.Revision))
		eventually(t, "waited for", func() bool {
			return strings.Contains(string(own.get(t, "/metrics").ok(t, "text/plain")), `nix_builders_waiting_requests{for="cluster"} 1`)
		})
		own.get(t, "/stop-nix-builders?builder="+other.Name, "-X", "POST").ok(t, "application/json")
		c.wantExit(waiting, 0)
		if next := decode[apiclient.Cluster](t, []byte(waiting.Output())); next.Revision <= now.Revision {
			t.Errorf("the query ended with revision %d, which is no newer than %d", next.Revision, now.Revision)
		}
		c.wantExit(c.builders["builder-2"], 0)
	})

	t.Run("stop with nothing but a POST", func(t *testing.T) {
		cmd := own.host.CommandAs(within(t, patience), testbed.Runner, "sh", "-c", `curl -fsS -X POST "$NIX_BUILDERS_API/stop-nix-builders"`)
		cmd.Env = append(cmd.Env, "NIX_BUILDERS_API="+base)
		out, err := testbed.Output(cmd)
		if err != nil {
			t.Fatal(err)
		}
		report := decode[apiclient.StopReport](t, []byte(out))
		for i, b := range report.Builders {
			if b.Name != c.NameOf(c.Builders[i]) || !b.Left || b.State != "departed" {
				t.Errorf("the report is %s", show(report))
			}
		}
		c.wantReleased()
		if after := decode[apiclient.Cluster](t, own.get(t, "/cluster").ok(t, "application/json")); after.Phase != "stopped" {
			t.Errorf("the cluster is %s", after.Phase)
		}
		own.get(t, "/stop-nix-builders", "-X", "POST").ok(t, "application/json")
	})

	t.Run("the whole story as events", func(t *testing.T) {
		all := events.rest(t)
		count := map[apiclient.EventType]int{}
		for i, e := range all {
			count[e.Type]++
			if e.Number != int64(i+1) || e.Cluster != c.Cluster() {
				t.Errorf("event %d of the stream is %s", i+1, show(e))
			}
		}
		for kind, want := range map[apiclient.EventType]int{
			"builder.joined": 3, "builder.ready": 3, "cluster.ready": 1, "builder.released": 2, "builder.departed": 2, "cluster.stopping": 1,
		} {
			if count[kind] != want {
				t.Errorf("the stream has %d events %s, want %d", count[kind], kind, want)
			}
		}
		if last := all[len(all)-1]; last.Type != "cluster.stopping" {
			t.Errorf("the stream ends with %s", show(last))
		}
		// One who was away for a while asks for what came since.
		missed := own.listen(t, "-H", fmt.Sprintf("Last-Event-ID: %d", len(all)-2)).rest(t)
		if len(missed) < 2 || missed[0].Number != int64(len(all)-1) {
			t.Errorf("after event %d come %s", len(all)-2, show(missed))
		}
	})
}

// exported is the base URL that the coordinator's step hands to later steps.
func exported(t *testing.T, step *fleet.Process) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^NIX_BUILDERS_API=(\S+)$`).FindStringSubmatch(step.Output())
	if m == nil {
		t.Fatalf("%s does not say where the API is:\n%s", step, step.Output())
	}
	return m[1]
}

// checkIn is a check-in as a builder sends it.
func checkIn(cluster, name string) string {
	return fmt.Sprintf(`{"cluster": %q, "name": %q, "instance": "6f1c6a0e-0f0b-4e55-9a59-0a8f7a2c9b11", "offer": {
		"systems": ["x86_64-linux"], "cores": 1, "memory_bytes": 1, "store_free_bytes": 1, "features": [],
		"nix_version": "2.26.3", "store_program": "/usr/bin/nix-daemon"}}`, cluster, name)
}

// grant adds to the tailnet's policy.
func grant(t *testing.T, lab *testbed.Lab, g control.Grant) {
	t.Helper()
	p, err := lab.Control().Policy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.Grants = append(p.Grants, g)
	if err := lab.Control().SetPolicy(t.Context(), p); err != nil {
		t.Fatal(err)
	}
}

// capability grants a node calls of every coordinator.
func capability(node string, words ...string) control.Grant {
	value, _ := json.Marshal(map[string][]string{"allow": words}) // of words there can be no error
	return control.Grant{
		Src: []string{node}, Dst: []string{"tag:nix-ci-coordinator"},
		IP:  []string{"tcp:8378"},
		App: map[string][]json.RawMessage{string(tailnet.Capability): {value}},
	}
}
