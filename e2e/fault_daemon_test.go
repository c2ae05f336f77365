package e2e_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// daemonFaults are the ends of the programs that the cluster rests on.
func daemonFaults() []faultStory {
	short, long := []string{leaseEnv, oneIsReady}, []string{oneIsReady}
	return []faultStory{
		{name: "tailscaled-killed", builders: 2, env: short, tell: tailscaledKilled},
		{name: "tailscaled-killed-co", builders: 2, env: short, tell: coordinatorsTailscaledKilled},
		{name: "tailscaled-back", builders: 2, env: long, tell: tailscaledBack},
		{name: "tailscaled-back-co", builders: 2, env: long, tell: coordinatorsTailscaledBack},
		{name: "nix-daemon-killed", builders: 2, env: short, tell: nixDaemonKilled},
		{name: "disk-full", builders: 2, env: short, store: map[string]int64{victim: 1 << 30}, tell: diskFull},
	}
}

// A builder without its tailscaled is a builder that is cut off, and it does not start
// another: whatever killed one is likely to kill the next.
func tailscaledKilled(f *fault) {
	f.serve(preferred)
	build := f.stallOn(victim)
	at := f.killTailscaled(victim)
	f.movesWithin(build, at, noticed)
	f.untilLost(victim, at)
	f.trueFiles()
	f.exitsWithin(f.builders[victim], 0, 2*shortLease+window-time.Since(at))
	f.says(f.builders[victim], "the coordinator is silent")
	f.end(survivor)
}

// A coordinator without its tailscaled has no builders, and they end well. What waits for
// one waits for two leases more, and is then told why it fails. Nix builds here.
func coordinatorsTailscaledKilled(f *fault) {
	f.serve(preferred)
	build := f.stallOn(victim)
	at := f.killTailscaled(f.Coordinator)
	f.exitsWithin(build, 1, noticed+2*shortLease-time.Since(at))
	f.t.Logf("nix build ended %v after the fault", time.Since(at).Round(100*time.Millisecond))
	f.says(build, "no builder for x86_64-linux is left")
	for _, host := range f.Builders {
		f.exitsWithin(f.builders[host], 0, 2*shortLease+window-time.Since(at))
		f.says(f.builders[host], "the coordinator is silent")
	}
	eventually(f.t, "without machines", func() bool { return len(f.machines()) == 0 })
	f.wantExit(f.buildAnywhere("fan-in.nix", "--arg", "leaves", "1", "--argstr", "seconds", "0"), 0)
	f.left()
}

// killTailscaled kills that of a host.
func (f *fault) killTailscaled(host string) time.Time {
	f.t.Helper()
	f.must(host, "pkill", "-KILL", "-x", "tailscaled")
	return time.Now()
}

// ownTailscaled starts a host's tailscaled before the program needs one, as a machine does
// that is on a tailnet for good: it comes back as the node that it was.
func (f *fault) ownTailscaled(host string) {
	f.t.Helper()
	f.own = append(f.own, host)
	if err := f.Host(host).StartTailscaled(within(f.t, patience), "--state=/var/lib/tailscale/tailscaled.state"); err != nil {
		f.t.Fatal(err)
	}
}

// restartTailscaled kills a host's tailscaled and starts it again, as its service manager
// would.
func (f *fault) restartTailscaled(host string) time.Time {
	f.t.Helper()
	f.killTailscaled(host)
	eventually(f.t, "without a tailscaled", func() bool { return len(f.pids(host, "tailscaled")) == 0 })
	if err := f.Host(host).StartTailscaled(within(f.t, patience), "--state=/var/lib/tailscale/tailscaled.state"); err != nil {
		f.t.Fatal(err)
	}
	return time.Now()
}

// A builder's tailscaled is restarted. It carries connections and holds none, so neither
// builder nor build is lost. Over SSH the build would be: tailscaled is the server.
func tailscaledBack(f *fault) {
	f.ownTailscaled(victim)
	f.serve(preferred)
	build := f.build("fan-in.nix", "--arg", "leaves", "1", "--argstr", "seconds", "12")
	f.runsOn(victim)
	before := f.awaitState(victim, "ready")
	f.restartTailscaled(victim)
	f.built(build)
	if strings.Contains(build.Output(), "moves from") {
		f.t.Errorf("the build has moved:\n%s", build.Output())
	}
	f.builds(victim, survivor)
	after := f.awaitState(victim, "ready")
	if before.Id == nil || after.Id == nil || *before.Id != *after.Id {
		f.t.Errorf("%s had the id %v and has %v", victim, before.Id, after.Id)
	}
	f.endWithoutLoss(victim, survivor)
}

// The coordinator's tailscaled is restarted. Connections outlive that, and so does a build.
func coordinatorsTailscaledBack(f *fault) {
	f.ownTailscaled(f.Coordinator)
	f.serve(preferred)
	build := f.build("fan-in.nix", "--arg", "leaves", "1", "--argstr", "seconds", "12")
	f.runsOn(victim)
	f.restartTailscaled(f.Coordinator)
	if building := f.building(victim); building != 1 {
		f.t.Errorf("%s has %d builds after the restart", victim, building)
	}
	f.built(build)
	f.endWithoutLoss(victim, survivor)
}

// Nix's daemons on a builder are killed, as when its memory runs out. Their builds move at
// once, and the builder takes the next.
func nixDaemonKilled(f *fault) {
	f.serve(preferred)
	build := f.stallOn(victim)
	f.must(victim, "pkill", "-KILL", "-x", "nix-daemon")
	f.movesWithin(build, time.Now(), 5*time.Second)
	f.nothingSent()
	f.endWithoutLoss(victim, survivor)
}

// A builder's disk is too small for a build, which moves to one that has room. It gets no
// more builds when it is nearly full, until it has room again.
func diskFull(f *fault) {
	f.serve(preferred)
	f.leaveFree(victim, 250)
	build := f.build("big.nix", "--arg", "megabytes", "400")
	f.movesWithin(build, time.Now(), patience)
	f.says(build, "its disk was full")
	f.nothingSent()
	f.leaveFree(victim, 50)
	b := f.awaitState(victim, "cordoned")
	contains(f.t, "the reason", b.Reason, "short of disk")
	f.trueFiles()
	f.builds(survivor)
	f.must(victim, "sh", "-c", "rm /nix/full-*")
	f.awaitState(victim, "ready")
	f.endWithoutLoss(victim, survivor)
}

// leaveFree fills a host's store up to so many megabytes.
func (f *fault) leaveFree(host string, megabytes int) {
	f.t.Helper()
	f.must(host, "sh", "-euc", `n=$(($(df --output=avail -BM /nix | tr -dc 0-9) - $1)); test $n -gt 0; fallocate -l "${n}M" "/nix/full-$1"`,
		"sh", fmt.Sprint(megabytes))
}

// endWithoutLoss is [fault.end] of a story in which nobody may be dropped.
func (f *fault) endWithoutLoss(remaining ...string) {
	f.t.Helper()
	f.trueFiles()
	f.builds(remaining...)
	f.stop()
	for _, host := range remaining {
		f.exitsWithin(f.builders[host], 0, patience)
	}
	f.nobodyWasLost()
	f.gone()
}

// left is [fault.gone] where the API can't be asked any more.
func (f *fault) left() {
	f.t.Helper()
	code, printed := f.run(testbed.Root, "nix-builders", "leave")
	if code != 0 {
		f.t.Errorf("nix-builders leave ended with code %d:\n%s", code, printed)
	}
	f.noOrphans()
}
