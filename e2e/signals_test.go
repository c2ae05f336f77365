package e2e_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// window is what a cancelled job gives a program between its first signal and the next.
const window = 7 * time.Second

// A person cancels a workflow run: whatever the program is doing on whichever host, it
// ends in order within the time that a runner gives it, and nothing of it stays.
func TestSignals(t *testing.T) {
	lab := startLab(t, testbed.Config{Builders: 2})
	b1, b2 := testbed.Builder(1), testbed.Builder(2)
	signals := map[string]syscall.Signal{b1: syscall.SIGINT, b2: syscall.SIGTERM}
	pristine := newRig(t, lab, "pristine", 0).files(testbed.Coordinator)

	// clean checks that no host, nor the tailnet, has anything of the program left.
	clean := func(r *rig) {
		r.t.Helper()
		if left := r.nodes(); len(left) > 0 {
			r.t.Errorf("still on the tailnet: %v", left)
		}
		for _, h := range lab.Hosts() {
			for _, program := range []string{"nix-builders", "tailscaled"} {
				if pids := r.pids(h.Name(), program); len(pids) > 0 {
					r.t.Errorf("%s still runs on %s: %v", program, h.Name(), pids)
				}
			}
			if diff := cmp.Diff(pristine, r.files(h.Name())); diff != "" {
				r.t.Errorf("files of %s are not as they were (-before +after):\n%s", h.Name(), diff)
			}
		}
	}

	t.Run("builder that nobody has claimed", func(t *testing.T) {
		r := newRig(t, lab, "looking", 2)
		builders := map[string]*fleet.Process{}
		for host := range signals {
			builders[host] = r.builder(host)
		}
		for host, p := range builders {
			r.awaitLine(p, "looking for the coordinator")
			r.signal(p, signals[host])
		}
		for _, p := range builders {
			r.exitsWithin(p, 130, window)
			r.says(p, "cancelled")
		}
		clean(r)
	})

	t.Run("builder that joins the tailnet", func(t *testing.T) {
		r := newRig(t, lab, "joining", 2)
		builders := map[string]*fleet.Process{}
		for host := range signals {
			builders[host] = r.builder(host, "NIX_BUILDERS_LOGIN_SERVER=http://10.77.0.250:1")
		}
		for host, p := range builders {
			r.awaitLine(p, "starting tailscaled")
			r.signal(p, signals[host])
		}
		for _, p := range builders {
			r.exitsWithin(p, 130, window)
			r.says(p, "cancelled")
		}
		clean(r)
	})

	t.Run("builder of a cluster", func(t *testing.T) {
		r := newRig(t, lab, "claimed", 2)
		builders := r.ready()
		for host, p := range builders {
			r.signal(p, signals[host])
		}
		for _, p := range builders {
			r.exitsWithin(p, 130, window)
		}
		if got, want := len(r.nodes()), 1; got != want {
			t.Errorf("%d nodes on the tailnet, want the coordinator's alone", got)
		}
		for host := range builders {
			b := r.awaitState(host, "departed")
			if !strings.Contains(b.Reason, "cancelled") {
				t.Errorf("%s departed for another reason: %s", host, b.Reason)
			}
		}
		r.stop()
		r.leave()
		clean(r)
	})

	for host, sig := range signals {
		t.Run("coordinator that gathers, "+sig.String(), func(t *testing.T) {
			r := newRig(t, lab, "gather-"+strings.TrimPrefix(host, "builder-"), 2)
			b := r.builder(host)
			c := r.coordinator()
			r.awaitLine(c, r.NameOf(host)+" is ready")
			r.signal(c, sig)
			r.exitsWithin(c, 130, window)
			r.says(c, "Cancelled; releasing the builders.")
			r.exitsWithin(b, 0, window)
			r.leave()
			clean(r)
		})
	}

	// The supervisor or the server itself may get it: a person, or the end of the host.
	for program, sig := range map[string]string{"supervise": "TERM", "serve": "INT"} {
		t.Run("detached server, SIG"+sig+" to "+program, func(t *testing.T) {
			r := newRig(t, lab, program, 2)
			builders := r.ready()
			begin := time.Now()
			r.kill(sig, testbed.Coordinator, program)
			for _, p := range builders {
				r.exitsWithin(p, 0, window)
				r.says(p, "told to leave")
			}
			eventually(t, "the server is gone", func() bool {
				return len(r.pids(testbed.Coordinator, "nix-builders")) == 0
			})
			if took := time.Since(begin); took > window {
				t.Errorf("it took %v, more than %v", took, window)
			}
			files := r.files(testbed.Coordinator)
			for _, name := range writtenFiles[:3] { // the command stays, and says that all is over
				if files[name] != pristine[name] {
					t.Errorf("%s is not restored before anybody says leave:\n%s", name, files[name])
				}
			}
			r.leave()
			clean(r)
		})
	}

	t.Run("coordinator in the foreground", func(t *testing.T) {
		r := newRig(t, lab, "foreground", 2)
		builders := map[string]*fleet.Process{b1: r.builder(b1), b2: r.builder(b2)}
		c := r.foreground()
		r.awaitLine(c, "Serving until this process is told to end.")
		r.signal(c, syscall.SIGINT)
		for _, p := range builders {
			r.exitsWithin(p, 0, window)
		}
		r.exitsWithin(c, 0, window)
		clean(r)
	})
}

// The server's process dies, as by the kernel's hand when memory is short. Its builders
// do not notice: it is back on its port with all it knew, a stop included.
func TestServerDies(t *testing.T) {
	t.Parallel() // it mostly waits
	lab := startLab(t, testbed.Config{Builders: 2})

	t.Run("and is started again", func(t *testing.T) {
		r := newRig(t, lab, "again", 2)
		builders := r.ready()
		before := r.await("there", func(apiclient.Cluster) bool { return true })
		api := r.api()
		r.kill("KILL", testbed.Coordinator, "serve")
		died := time.Now()
		after := r.await("ready again", func(c apiclient.Cluster) bool { return c.Phase == "ready" })
		t.Logf("back after %v", time.Since(died))
		if took := time.Since(died); took > 5*time.Second {
			t.Errorf("it took %v until the server was back", took)
		}
		for _, host := range r.Builders {
			was, _ := builderOf(before, r.NameOf(host))
			is, _ := builderOf(after, r.NameOf(host))
			if is.Id == nil || was.Id == nil || *is.Id != *was.Id {
				t.Errorf("%s had the id %v and has %v", host, was.Id, is.Id)
			}
		}
		if r.api() != api {
			t.Errorf("its API was %s and is %s: nobody knows", api, r.api())
		}
		if after.Event < before.Event || after.Revision < before.Revision {
			t.Errorf("event %d and revision %d follow %d and %d", after.Event, after.Revision, before.Event, before.Revision)
		}

		// A builder that leaves now is an event with the next number.
		r.stop(r.NameOf(r.Builders[0]))
		r.wantExit(builders[r.Builders[0]], 0)
		released := r.await("there", func(apiclient.Cluster) bool { return true })
		if released.Event <= after.Event {
			t.Errorf("event %d follows %d", released.Event, after.Event)
		}

		r.stop()
		r.wantExit(builders[r.Builders[1]], 0)
		r.kill("KILL", testbed.Coordinator, "serve")
		stopped := r.await("there again", func(apiclient.Cluster) bool { return true })
		if stopped.Phase != "stopped" {
			t.Errorf("a stop was forgotten: the cluster is %s", stopped.Phase)
		}
		// A builder that comes only now is not kept.
		late := r.builder(r.Builders[0])
		r.wantExit(late, 0)
		r.leave()
	})

	// Nobody is left to start it again: the builders free themselves.
	t.Run("with its supervisor", func(t *testing.T) {
		const lease = 3 * time.Second
		r := newRig(t, lab, "gone", 2)
		pristine := r.files(testbed.Coordinator)
		builders := r.ready("NIX_BUILDERS_LEASE=3s")
		// Each would do something about the other's death: the server says good-bye to its builders.
		r.kill("STOP", testbed.Coordinator, "supervise")
		r.kill("KILL", testbed.Coordinator, "serve", "supervise")
		died := time.Now()
		for _, p := range builders {
			r.exitsWithin(p, 0, 2*lease+window)
			r.says(p, "the coordinator is silent")
		}
		if took := time.Since(died); took > 2*lease+4*time.Second {
			t.Errorf("it took the builders %v to end, their lease is %v", took, lease)
		}
		r.leave()
		if diff := cmp.Diff(pristine, r.files(testbed.Coordinator)); diff != "" {
			t.Errorf("files are not as they were (-before +after):\n%s", diff)
		}
		if left := r.nodes(); len(left) > 0 {
			t.Errorf("still on the tailnet: %v", left)
		}
	})
}
