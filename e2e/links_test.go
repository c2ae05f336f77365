package e2e_test

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/image"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/sshconf"
)

// A builder vanishes without a word while it builds. Stock Nix waits for it: with the
// keepalives that we set for longer than a lease, without any for ever. When its links are
// ended, Nix says so at once, and the same command builds elsewhere.
func TestLinks(t *testing.T)           { endLinks(t, image.Trixie) }
func TestLinksOfNewerNix(t *testing.T) { endLinks(t, image.Sid) }

func endLinks(t *testing.T, suite string) {
	t.Parallel() // it mostly waits
	lab := startLab(t, testbed.Config{Suite: suite, Builders: 3, Programs: []string{"./e2e/links"}})
	w := newLinksWorld(t, lab)
	kept, plain, rest := testbed.Builder(1), testbed.Builder(2), testbed.Builder(3)
	w.configure(kept, plain, rest)
	w.is(nil)

	// A person's ssh is nobody's build.
	person := w.start("ssh", plain, "sleep", "600")
	eventually(t, "a person logged in on "+plain, func() bool { return w.sleepers(plain) == 1 })

	// What the daemon builds for a user, and what root builds without it.
	builds := map[string]*fleet.Process{
		kept:  w.build(testbed.Runner, kept, "fan-in.nix", "--arg", "leaves", "3", "--argstr", "seconds", "600"),
		plain: w.build(testbed.Root, plain, "fan-in.nix", "--arg", "leaves", "1", "--argstr", "seconds", "600"),
	}
	eventually(t, "all builds run", func() bool { return w.sleepers(kept) == 3 && w.sleepers(plain) == 1+1 })
	w.is(map[string]int{kept: 3, plain: 1})

	for host := range builds {
		if err := lab.Host(host).Cut(within(t, patience)); err != nil {
			t.Fatal(err)
		}
	}
	// The fault bites: longer than two leases of the stories that end by a lease.
	const hangs = 15 * time.Second
	select {
	case <-builds[kept].Done():
		t.Fatalf("nix build noticed by itself, with keepalives:\n%s", builds[kept].Output())
	case <-builds[plain].Done():
		t.Fatalf("nix build noticed by itself, without keepalives:\n%s", builds[plain].Output())
	case <-time.After(hangs):
	}
	w.is(map[string]int{kept: 3, plain: 1})

	for _, host := range []string{kept, plain} {
		begin := time.Now()
		w.must("links", "end", host)
		code, err := builds[host].Wait(within(t, 2*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("nix build on %s ended %v after its links were told to, with code %d", host, time.Since(begin), code)
		if code == 0 {
			t.Errorf("nix build succeeded without %s", host)
		}
		contains(t, "nix build", builds[host].Output(), "Nix daemon disconnected unexpectedly")
	}
	w.is(nil)
	if left := w.must("pgrep", "-ax", "ssh"); !strings.HasSuffix(left, " ssh "+plain+" sleep 600") || strings.Contains(left, "\n") {
		t.Errorf("the coordinator has these ssh, want the person's alone:\n%s", left)
	}
	select {
	case <-person.Done():
		t.Error("the person's ssh was ended too")
	default:
	}

	again := w.build(testbed.Runner, rest, "fan-in.nix", "--arg", "leaves", "2", "--argstr", "seconds", "0")
	if diff := cmp.Diff([]string{rest}, hostsOf(w.where(again))); diff != "" {
		t.Errorf("hosts that built the second time (-want +got):\n%s", diff)
	}
	w.is(nil)
}

// linksWorld is a coordinator whose Nix was told of builders by hand, so that nobody but
// the test looks after it.
type linksWorld struct {
	*cluster
	co *testbed.Host
}

func newLinksWorld(t *testing.T, lab *testbed.Lab) *linksWorld {
	w := &linksWorld{cluster: newCluster(t, lab, "links", 0), co: lab.Host(testbed.Coordinator)}
	for _, h := range lab.Hosts() {
		tag := "tag:nix-ci-builder"
		if h == w.co {
			tag = "tag:nix-ci-coordinator"
		}
		if err := h.JoinTailnet(within(t, patience), testbed.Tailnet{Tags: []string{tag}, SSH: true}); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// configure lets ssh reach the builders, the first with our keepalives and the others with
// none, and Nix use each by a file of its own.
func (w *linksWorld) configure(kept string, plain ...string) {
	w.t.Helper()
	peers := w.peers(append(plain, kept))
	hosts := func(names ...string) (hosts []sshconf.Host) {
		for _, name := range names {
			hosts = append(hosts, peers[name])
		}
		return hosts
	}
	opts := sshconf.Options{KnownHosts: "/root/.ssh/known_hosts"}
	ours, err := sshconf.Config(hosts(kept), opts)
	if err != nil {
		w.t.Fatal(err)
	}
	theirs, err := sshconf.Config(hosts(plain...), opts)
	if err != nil {
		w.t.Fatal(err)
	}
	theirs = strings.Join(slices.DeleteFunc(strings.Split(theirs, "\n"), func(line string) bool {
		return strings.Contains(line, "ServerAlive")
	}), "\n")
	known, err := sshconf.KnownHosts(hosts(append(plain, kept)...))
	if err != nil {
		w.t.Fatal(err)
	}
	w.write("/root/.ssh/config", ours+theirs)
	w.write("/root/.ssh/known_hosts", known)
	for name, h := range peers {
		line, err := nix.Machine{
			Name: name, StoreProgram: "/usr/bin/nix-daemon", Systems: []string{"x86_64-linux"}, MaxJobs: 4, HostKey: nix.HostKeys(h.Keys)[0],
		}.Line()
		if err != nil {
			w.t.Fatal(err)
		}
		w.write(machinesOf(name), line+"\n")
	}
}

func machinesOf(host string) string { return "/etc/nix/machines-" + host }

// peers are the builders as the coordinator's tailscaled knows them.
func (w *linksWorld) peers(names []string) map[string]sshconf.Host {
	w.t.Helper()
	var peers map[string]sshconf.Host
	eventually(w.t, "all host keys are known", func() bool {
		peers = map[string]sshconf.Host{}
		var status struct {
			Peer map[string]struct {
				HostName     string
				TailscaleIPs []netip.Addr
				SSHHostKeys  []string `json:"sshHostKeys"`
			}
		}
		if err := json.Unmarshal([]byte(w.must("tailscale", "status", "--json")), &status); err != nil {
			w.t.Fatal(err)
		}
		for _, p := range status.Peer {
			if len(p.SSHHostKeys) > 0 && slices.Contains(names, p.HostName) {
				peers[p.HostName] = sshconf.Host{Name: p.HostName, Addr: p.TailscaleIPs[0], Keys: nix.HostKeys(p.SSHHostKeys)}
			}
		}
		return len(peers) == len(names)
	})
	return peers
}

func (w *linksWorld) must(argv ...string) string {
	w.t.Helper()
	return output(w.t, w.co, testbed.Root, argv...)
}

func (w *linksWorld) write(name, text string) {
	w.t.Helper()
	if err := w.co.WriteFile(within(w.t, patience), name, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *linksWorld) start(argv ...string) *fleet.Process {
	w.t.Helper()
	return w.cluster.start(testbed.Root, argv...)
}

// build builds on one builder alone. Root's nix does without the daemon.
func (w *linksWorld) build(user, host, expression string, args ...string) *fleet.Process {
	w.t.Helper()
	if user == testbed.Root {
		args = append(args, "--builders", "@"+machinesOf(host))
	} else {
		w.must("cp", machinesOf(host), "/etc/nix/machines")
	}
	p, err := w.Build(w.t.Context(), user, expression, uniqueTag(), args...)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// is wants this many links to each builder.
func (w *linksWorld) is(want map[string]int) {
	w.t.Helper()
	got := map[string]int{}
	for line := range strings.Lines(w.must("links")) {
		name, _, _ := strings.Cut(line, " ")
		got[name]++
	}
	if want == nil {
		want = map[string]int{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("links by builder (-want +got):\n%s", diff)
	}
}

// sleepers counts the processes of a builder that sleep for ten minutes. A build's are in a
// process namespace of its own, but a host sees them.
func (w *linksWorld) sleepers(host string) int {
	w.t.Helper()
	out := output(w.t, w.Host(host), testbed.Root, "sh", "-c", "pgrep -fx 'sleep 600' | wc -l")
	n, err := strconv.Atoi(out)
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}
