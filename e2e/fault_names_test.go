package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

// nameFaults are about who holds a builder's name.
func nameFaults() []faultStory {
	return []faultStory{
		{name: "replaced", builders: 2, env: []string{leaseEnv, oneIsReady}, tell: replaced},
		{name: "stops-race-a-join", builders: 3, env: []string{"NIX_BUILDERS_MIN_BUILDERS=2"}, tell: stopsRaceAJoin},
		{name: "liar", builders: 2, env: []string{leaseEnv}, tell: liar},
	}
}

// A builder's host dies and its job is run again: another host with the same name takes
// over the slot, though the tailnet, where the dead one lingers, calls it something else.
func replaced(f *fault) {
	f.serve(preferred)
	build := f.stallOn(victim)
	before := f.awaitState(victim, "ready")
	at := f.do(f.Host(victim).Kill)

	const spare = "spare"
	f.Names = map[string]string{spare: f.NameOf(victim)}
	if _, err := f.Lab.Boot(within(f.t, patience), testbed.HostSpec{Name: spare}); err != nil {
		f.t.Fatal(err)
	}
	f.builder(spare, preferred[victim]...)
	f.exitsWithin(build, 0, noticed-time.Since(at))
	f.says(build, "moves from "+strings.ToLower(f.NameOf(victim)))
	after := f.awaitState(spare, "ready")
	for before.Id != nil && after.Id != nil && *after.Id == *before.Id {
		if time.Since(at) > patience {
			f.t.Fatalf("after %v the name is still the dead host's: %s", patience, show(after))
		}
		after = f.awaitState(spare, "ready")
	}
	f.t.Logf("ready %v after the death of its predecessor, as %s", time.Since(at).Round(100*time.Millisecond), *after.NodeName)
	if nodes := f.nodes(); !slices.Contains(nodes, *after.NodeName) {
		f.t.Errorf("it is called %s, the tailnet has %v", *after.NodeName, nodes)
	}
	f.end(spare, survivor)
}

// Two people stop the cluster while a builder comes. Both are told that all have left, and
// the late one ends as well as the others.
func stopsRaceAJoin(f *fault) {
	early, late := f.Builders[:2], f.Builders[2]
	for _, host := range early {
		f.builder(host)
	}
	f.exitsWithin(f.coordinator(), 0, patience)
	f.watch()
	f.awaitLine(f.builder(late), "joined the tailnet") // it looks for the coordinator now
	var stops []*fleet.Process
	for range 2 {
		stops = append(stops, f.start(testbed.Runner, "stop-nix-builders"))
	}
	for _, p := range stops {
		f.exitsWithin(p, 0, patience)
		f.says(p, "Released ")
	}
	for _, host := range f.Builders {
		f.exitsWithin(f.builders[host], 0, patience)
		f.says(f.builders[host], "told to leave")
	}
	f.nobodyWasLost()
	f.gone()
}

// A builder's host says what is not true. It is told so, and nobody else notices.
func liar(f *fault) {
	f.serve(preferred)
	own := caller{f.Host(f.Coordinator), f.api()}
	lies := caller{f.Host(victim), f.api()}
	before := own.get(f.t, "/cluster").ok(f.t, "application/json")
	machines := f.must(f.Coordinator, "cat", "/etc/nix/machines")

	good := checkIn(f.Cluster(), f.NameOf(victim))
	for _, lie := range []struct {
		what, body string
		want       problem.Slug
	}{
		{"another's name", checkIn(f.Cluster(), f.NameOf(survivor)), problem.NotYours},
		{"nobody's name", checkIn(f.Cluster(), "nix-builder-nobody"), problem.NotExpected},
		{"another cluster", checkIn("acme/site/other/1", f.NameOf(victim)), problem.WrongCluster},
		{"a billion cores", strings.Replace(good, `"cores": 1`, `"cores": 1000000000`, 1), problem.Invalid},
		{"less than no memory", strings.Replace(good, `"memory_bytes": 1`, `"memory_bytes": -1`, 1), problem.Invalid},
		{"a line of its own for machines", strings.Replace(good, "x86_64-linux", `x86_64-linux\nssh-ng://root@evil`, 1), problem.Invalid},
		{"a program with arguments", strings.Replace(good, "/usr/bin/nix-daemon", "/bin/sh -c reboot", 1), problem.Invalid},
		{"no systems", strings.Replace(good, `["x86_64-linux"]`, "[]", 1), problem.Invalid},
		{"a thousand systems", strings.Replace(good, `"x86_64-linux"`, `"x86_64-linux"`+strings.Repeat(`,"a-linux"`, 1000), 1), problem.Invalid},
		{"ten thousand systems", strings.Replace(good, `"x86_64-linux"`, `"x86_64-linux"`+strings.Repeat(`,"a-linux"`, 10_000), 1), problem.TooLarge},
	} {
		f.t.Log(lie.what)
		lies.post(f.t, "/check-ins", lie.body).refused(f.t, lie.want)
	}
	if after := f.must(f.Coordinator, "cat", "/etc/nix/machines"); after != machines {
		f.t.Errorf("machines changed from\n%sto\n%s", machines, after)
	}
	after := own.get(f.t, "/cluster").ok(f.t, "application/json")
	if b, a := fmt.Sprint(f.ids(decode[apiclient.Cluster](f.t, before))), fmt.Sprint(f.ids(decode[apiclient.Cluster](f.t, after))); a != b {
		f.t.Errorf("the builders were %s and are %s", b, a)
	}
	f.endWithoutLoss(victim, survivor)
}
