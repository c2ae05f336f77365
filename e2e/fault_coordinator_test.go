package e2e_test

import (
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// coordinatorFaults are the ends of the coordinator, or of its host, and the absence of
// whoever runs the tailnet.
func coordinatorFaults() []faultStory {
	return []faultStory{
		{name: "step-by-hand", builders: 2, env: []string{"NIX_BUILDERS_LEASE=15"}, tell: stepByHand},
		{name: "coordinator-killed", builders: 2, env: []string{leaseEnv}, tell: coordinatorKilled},
		{name: "control-cut", builders: 2, env: []string{leaseEnv}, tell: func(f *fault) { controlCut(f, 15*time.Second) }},
		{name: "control-cut-60s", builders: 2, chaos: true, env: []string{leaseEnv}, tell: func(f *fault) { controlCut(f, time.Minute) }},
	}
}

// endFaults come last: they show what is not as it should be yet.
func endFaults() []faultStory {
	return []faultStory{
		{name: "control-cut-at-end", builders: 2, chaos: true, env: []string{leaseEnv}, tell: controlCutAtTheEnd},
	}
}

// The server and who would start it again are dead. A person runs the step once more, and
// has the cluster that was there, with the builders that have waited.
func stepByHand(f *fault) {
	f.serve(preferred)
	f.events.close()
	before := f.await("ready", func(now apiclient.Cluster) bool { return now.Phase == "ready" })
	ids := f.ids(before)
	build := f.build("fan-in.nix", "--arg", "leaves", "1", "--argstr", "seconds", "8")
	f.runsOn(victim)

	// A server whose supervisor dies ends in order, if it has the time.
	f.kill("STOP", f.Coordinator, "serve")
	f.kill("KILL", f.Coordinator, "supervise", "serve")
	f.exitsWithin(f.coordinator(), 0, patience)
	f.watch()
	f.allReady()
	after := f.await("ready", func(now apiclient.Cluster) bool { return now.Phase == "ready" })
	if diff := cmp.Diff(ids, f.ids(after)); diff != "" {
		f.t.Errorf("ids of the builders (-before +after):\n%s", diff)
	}
	if after.Event < before.Event {
		f.t.Errorf("the last event is %d, and was %d", after.Event, before.Event)
	}
	f.built(build) // its hook needs no coordinator for what has begun
	f.endWithoutLoss(victim, survivor)
}

// ids are the builders' ids, by name.
func (f *fault) ids(c apiclient.Cluster) map[string]string {
	ids := map[string]string{}
	for _, b := range c.Builders {
		if b.Id != nil {
			ids[b.Name] = b.Id.String()
		}
	}
	return ids
}

// The coordinator's host is gone for good. No builder waits for a job's whole time: each
// ends within two leases, and well, since it was used.
func coordinatorKilled(f *fault) {
	f.serve(preferred)
	f.stallOn(victim)
	at := f.do(f.Host(f.Coordinator).Kill)
	for _, host := range f.Builders {
		f.exitsWithin(f.builders[host], 0, 2*shortLease+window-time.Since(at))
		f.says(f.builders[host], "the coordinator is silent")
	}
	f.t.Logf("all builders have ended %v after the coordinator's host", time.Since(at).Round(100*time.Millisecond))
	f.noOrphans()
}

// Nobody can reach the control server for a while. Who is on the tailnet stays there, and
// builds go on.
func controlCut(f *fault, d time.Duration) {
	f.serve(preferred)
	cut := f.do(f.Lab.CutControl)
	if _, err := f.Host(victim).Output(within(f.t, patience), "curl", "-sS", "--max-time", "1", f.Lab.LoginServer()+"/key?v=1"); err == nil {
		f.t.Fatal("the control server answers through a cable that is cut")
	}
	f.builds(victim, survivor)
	for time.Since(cut) < d {
		f.trueFiles()
		time.Sleep(time.Second)
	}
	f.builds(victim, survivor)
	f.do(f.Lab.HealControl)
	f.heardByControl()
	f.endWithoutLoss(victim, survivor)
}

// heardByControl waits until every host hears the control server again, by a policy that
// it can only have heard of now, and is heard there: what was said to nobody is said again
// ever more rarely.
func (f *fault) heardByControl() {
	f.t.Helper()
	tags := []string{builderTag, coordinatorTag}
	grant(f.t, f.Lab, control.Grant{Src: tags, Dst: tags, IP: []string{"tcp:48379"}})
	for _, h := range f.Lab.Hosts() {
		eventually(f.t, h.Name()+" hears the control server", func() bool {
			return f.count(h.Name(), "tailscale debug netmap | grep 48379") > 0
		})
		eventually(f.t, h.Name()+" is heard by the control server", func() bool {
			return f.count(h.Name(), "ss -Htn 'dport = :8080' | awk '$3 > 0'") == 0
		})
	}
}

// The control server can't be reached when the job ends. Nothing of the cluster needs it any
// more, so that is no failure of the job; the tailnet forgets ephemeral nodes by itself.
func controlCutAtTheEnd(f *fault) {
	f.serve(preferred)
	f.do(f.Lab.CutControl)
	f.endWithoutLoss(victim, survivor)
}
