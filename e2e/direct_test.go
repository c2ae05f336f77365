package e2e_test

import (
	"strings"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/image"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// Nix reaches the builders over the tailnet alone, and no ssh is involved.
func TestDirect(t *testing.T)             { buildDirectly(t, image.Trixie) }
func TestDirectWithNewerNix(t *testing.T) { buildDirectly(t, image.Sid) }

func buildDirectly(t *testing.T, suite string) {
	t.Parallel() // it mostly waits
	lab := startLab(t, testbed.Config{Suite: suite, Builders: 2, Programs: testbed.Programs("./e2e/links")})
	first := testbed.Builder(1)
	d := &directStory{newRig(t, lab, "direct", 2)}
	d.ready()
	d.reached("ssh-ng://localhost?remote-program=", 2)

	build := d.build("fan-in.nix", "--arg", "leaves", "4", "--argstr", "seconds", "3")
	eventually(t, "all of it is built", func() bool { return d.building(first)+d.building(testbed.Builder(2)) == 4 })
	if ssh := d.pids(d.Coordinator, "ssh"); len(ssh) > 0 {
		t.Errorf("%d ssh run on the coordinator", len(ssh))
	}
	d.where(build)

	// Connections are ready before they are asked for, and builds have left none behind.
	eventually(t, "two connections to each builder are ready", func() bool {
		return d.count(d.Coordinator, "ss -Htn state established dport = :8379") == 4
	})
	if n := len(d.pids(d.Coordinator, "nix-builders", "dial-store")); n > 0 {
		t.Errorf("%d dial-store are left", n)
	}

	// Nobody but the coordinator is served: not even the builder itself.
	for path, want := range map[string]string{"store": "403", "conditions?age_milliseconds=1": "403", "": "404"} {
		got := d.must(first, "sh", "-c", `curl -sS --max-time 10 -o /dev/null -w '%{http_code}' -H 'Connection: Upgrade' -H 'Upgrade: nix-daemon' "http://$(tailscale ip -4):8379/$1"`, "sh", path)
		if got != want {
			t.Errorf("GET /%s by another node was answered %s, want %s", path, got, want)
		}
	}
	d.stop()
	d.wantReleased()
	d.leave()
}

// A directStory is about builds on builders that are reached directly.
type directStory struct{ *rig }

// reached wants this many machines to be reached by URIs that begin so, and no others.
func (d *directStory) reached(uri string, machines int) {
	d.t.Helper()
	text := d.must(d.Coordinator, "cat", "/etc/nix/machines")
	if n, all := strings.Count(text, "\n"+uri), strings.Count(text, "ssh-ng://"); n != machines || all != machines {
		d.t.Errorf("%d machines of %d are reached at %s..., want %d:\n%s", n, all, uri, machines, text)
	}
}

// A builder's agent that dies, or is stopped for longer than a lease, leaves no build behind.
func TestDirectBuildsEndWithTheirAgent(t *testing.T) {
	t.Parallel() // it mostly waits
	lab := startLab(t, testbed.Config{Builders: 2})
	killed, frozen := testbed.Builder(1), testbed.Builder(2)
	d := &directStory{newRig(t, lab, "fence", 2)}
	d.Env["NIX_BUILDERS_LEASE"] = "4"
	d.ready()
	build := d.build("fan-in.nix", "--arg", "leaves", "4", "--argstr", "seconds", "600", "--keep-going")
	eventually(t, "both build", func() bool { return d.building(killed) > 0 && d.building(frozen) > 0 })

	d.kill("STOP", frozen, "builder")
	d.kill("KILL", killed, "builder")
	begin := time.Now()
	eventually(t, "nothing is built where the agent was killed", func() bool { return d.building(killed) == 0 })
	t.Logf("the builds of an agent that was killed ended after %v", time.Since(begin))
	d.awaitState(frozen, apiclient.BuilderStateLost)
	d.wantExit(build, 1)
	if d.building(frozen) == 0 {
		t.Error("builds ended though nobody could end them: the story is about nothing")
	}
	d.kill("CONT", frozen, "builder")
	begin = time.Now()
	eventually(t, "nothing is built where the agent was frozen", func() bool { return d.building(frozen) == 0 })
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("an agent that had lost its lease took %v to end its builds", took)
	}
	d.awaitState(frozen, apiclient.BuilderStateReady)
	d.where(d.build("fan-in.nix", "--arg", "leaves", "1", "--argstr", "seconds", "0"))
	d.stop()
	d.leave()
}

func TestTransportSSH(t *testing.T) {
	t.Parallel() // it mostly waits
	lab := startLab(t, testbed.Config{Builders: 1})
	d := &directStory{newRig(t, lab, "byssh", 1)}
	d.ready("NIX_BUILDERS_TRANSPORT=ssh")
	d.reached("ssh-ng://root@", 1)
	d.where(d.build("fan-in.nix", "--arg", "leaves", "2", "--argstr", "seconds", "0"))
	if n := d.count(d.Coordinator, "ss -Htn state established dport = :8379"); n > 0 {
		t.Errorf("%d connections to port 8379", n)
	}
	d.stop()
	d.wantReleased()
	d.leave()
}

// A port that is taken on the builder's host costs nothing but a line.
func TestDirectPortIsTaken(t *testing.T) {
	t.Parallel() // it mostly waits
	lab := startLab(t, testbed.Config{Builders: 1})
	d := &directStory{newRig(t, lab, "taken", 1)}
	taken, err := d.Start(t.Context(), testbed.Builder(1), testbed.Root, "sh", "-c", "exec busybox nc -l -p 8379")
	if err != nil {
		t.Fatal(err)
	}
	d.started = append(d.started, taken)
	builder := d.builder(testbed.Builder(1))
	step := d.coordinator()
	d.wantExit(step, 0)
	d.says(builder, "this host's store is served over SSH only", "address already in use")
	d.reached("ssh-ng://root@", 1)
	d.says(step, "is ready: its store answered over SSH alone: its agent does not serve its store")
	d.stop()
	d.wantReleased()
	d.leave()
}
