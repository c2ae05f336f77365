package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/dispatch"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/golden"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
)

// golden compares text, in which the test's directory is called DIR, with a golden file.
func (r *rig) golden(name, text string) {
	r.t.Helper()
	golden.Equal(r.t, name, strings.ReplaceAll(text, r.dir, "DIR"))
}

func TestFilesFollowTheCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := build(t, "b1", "B2.example", "b3")
		r.put(r.files.NixConf, "max-jobs = 0")
		r.put(r.files.Machines, "ssh://mine x86_64-linux\n")
		r.put(r.files.SSHConfig, "Host *\n  User me\n")
		r.cfg.SpeedFactor = 2
		r.check = func(_ context.Context, m nix.Machine) error {
			if strings.Contains(r.text(r.files.Machines), m.Name) {
				t.Errorf("%s is in the machines file before its store answered", m.Name)
			}
			if !strings.Contains(r.text(r.files.SSHConfig), "\nHost "+m.Name+"\n") || !strings.Contains(r.text(r.files.KnownHosts), m.Name+" ssh-ed25519") {
				t.Errorf("the store of %s is opened before ssh knows it", m.Name)
			}
			if m.Name == "b3" {
				return errors.New("its store is shut")
			}
			return nil
		}
		r.run()
		settle()
		r.join(1, "b1")
		o := offer()
		o.Systems, o.Features, o.MemoryBytes = []string{"aarch64-darwin"}, nil, 5<<30
		r.joinAs(2, "B2.example", uuid.New(), o)
		r.join(3, "b3")
		settle()

		r.golden("machines", r.text(r.files.Machines))
		r.golden("nix.conf", r.text(r.files.NixConf))
		r.golden("ssh_config", r.text(r.files.SSHConfig))
		r.golden("known_hosts", r.text(r.files.KnownHosts))
		r.golden("hosts", r.text(r.files.Hosts))
		r.wantState("b1", coordinator.StateReady)
		r.wantState("B2.example", coordinator.StateReady)
		r.wantState("b3", coordinator.Joined)
		if b := r.builder("B2.example"); b.MaxJobs != 2 {
			t.Errorf("B2.example has %d jobs, want 2 of its 5 GiB", b.MaxJobs)
		}
		if b := r.builder("b3"); !strings.Contains(b.Reason, "its store is shut") {
			t.Errorf("b3's reason is %q", b.Reason)
		}
		if r.restarted() != 1 {
			t.Errorf("the daemon was restarted %d times", r.restarted())
		}

		if err := r.d.Restore(t.Context()); err != nil {
			t.Error(err)
		}
		for path, want := range map[string]string{
			r.files.NixConf: "max-jobs = 0", r.files.Machines: "ssh://mine x86_64-linux\n",
			r.files.SSHConfig: "Host *\n  User me\n", r.files.KnownHosts: "",
			r.files.Hosts: "",
		} {
			if diff := cmp.Diff(want, r.text(path)); diff != "" {
				t.Errorf("%s after Restore (-want +got):\n%s", path, diff)
			}
		}
		if _, err := os.Stat(filepath.Dir(r.files.KnownHosts)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the directory that was made is left behind: %v", err)
		}
		if r.restarted() != 2 {
			t.Errorf("the daemon was restarted %d times, want once more", r.restarted())
		}
	})
}

// What a builder says of itself counts; for one that says nothing, what the coordinator's
// settings say.
func TestBuildersOwnJobsAndSpeed(t *testing.T) {
	own := func(jobs, speed int) coordinator.Offer {
		o := offer() // 4 cores
		if jobs > 0 {
			o.MaxJobs = &jobs
		}
		if speed > 0 {
			o.SpeedFactor = &speed
		}
		return o
	}
	for _, test := range []struct {
		name        string
		jobs, speed int // the coordinator's settings
		own         coordinator.Offer
		want        string // max jobs and speed factor in the machines file
	}{
		{"nobody says anything", 0, 0, own(0, 0), "4 1"},
		{"the coordinator does", 3, 2, own(0, 0), "3 2"},
		{"the builder does", 0, 0, own(1, 4), "1 4"},
		{"both do", 3, 2, own(1, 4), "1 4"},
		{"the builder says its jobs", 3, 2, own(1, 0), "1 2"},
		{"the builder says its speed", 3, 2, own(0, 4), "3 4"},
		{"more jobs than cores", 0, 0, own(64, 0), "64 1"},
		{"the most there are", 0, 0, own(4096, 1000), "4096 1000"},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := build(t, "b1")
			r.cfg.MaxJobs, r.cfg.SpeedFactor = test.jobs, test.speed
			r.run()
			r.joinAs(1, "b1", uuid.New(), test.own)
			settle()
			r.wantState("b1", coordinator.StateReady)
			if text := r.text(r.files.Machines); !strings.Contains(text, " - "+test.want+" benchmark,kvm ") {
				t.Errorf("%s: want %q in:\n%s", test.name, test.want, text)
			}
			b := r.builder("b1")
			if got := fmt.Sprintf("%d %d", b.MaxJobs, b.SpeedFactor); got != test.want {
				t.Errorf("%s: the cluster knows of %s, want %s", test.name, got, test.want)
			}
		})
	}
}

func TestBuildersThatGoLeaveTheFilesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := build(t, "departs", "released", "lost", "stays")
		r.cluster = r.newCluster(coordinator.Config{Builders: []string{"departs", "released", "lost", "stays"}, Lease: 45 * time.Second, Quorum: 1})
		r.run()
		instances := map[string]uuid.UUID{}
		ids := map[string]uuid.UUID{}
		for n, name := range []string{"departs", "released", "lost", "stays"} {
			instances[name] = uuid.New()
			ids[name] = r.joinAs(n+1, name, instances[name], offer())
		}
		settle()
		if err := r.cluster.Depart(t.Context(), r.node(1, "departs"), ids["departs"], coordinator.Departure{Reason: coordinator.DepartCancelled}); err != nil {
			t.Fatal(err)
		}
		settle()
		r.wantListed("departs", false)
		r.cluster.Stop(t.Context(), coordinator.StopRequest{Builders: []string{"released"}})
		settle()
		r.wantListed("released", false)
		for range 3 {
			pass(20 * time.Second)
			r.joinAs(4, "stays", instances["stays"], offer())
		}
		settle()
		r.wantState("lost", coordinator.Lost)
		r.wantListed("lost", false)
		r.wantListed("stays", true)
		if config := r.text(r.files.SSHConfig); strings.Contains(config, "Host lost") || !strings.Contains(config, "Host stays") {
			t.Errorf("ssh_config:\n%s", config)
		}

		// What comes back is checked anew, under the id it has.
		before := r.checked("lost")
		r.joinAs(3, "lost", instances["lost"], offer())
		settle()
		r.wantState("lost", coordinator.StateReady)
		r.wantListed("lost", true)
		if n := r.checked("lost"); n != before+1 {
			t.Errorf("lost was checked %d times, want %d", n, before+1)
		}
	})
}

func TestUnusableBuildersAreRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := build(t, "localhost", "b2", "b3")
		var published atomic.Bool
		r.peer = func(node string) (dispatch.Peer, error) {
			p := dispatch.Peer{Addr: addrOf(node), HostKeys: []string{hostKey}}
			if node == "node-2" && !published.Load() {
				p.HostKeys = nil
			}
			return p, nil
		}
		r.run()
		r.join(1, "localhost") // Nix would run the program here
		r.join(2, "b2")
		r.join(3, "b3")
		settle()
		r.wantState("localhost", coordinator.Rejected)
		r.wantState("b2", coordinator.Joined)
		r.wantState("b3", coordinator.StateReady)
		if b := r.builder("b2"); !strings.Contains(b.Reason, "--ssh") {
			t.Errorf("b2's reason is %q", b.Reason)
		}
		published.Store(true)
		pass(5 * time.Second)
		r.wantState("b2", coordinator.StateReady)
	})
}

func TestReadyMeansThatTheDaemonKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := build(t, "b1")
		r.restart = func(ctx context.Context) error {
			select {
			case <-time.After(3 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		r.run()
		r.join(1, "b1")
		pass(2 * time.Second)
		r.wantListed("b1", true)
		r.wantState("b1", coordinator.Joined)
		pass(2 * time.Second)
		r.wantState("b1", coordinator.StateReady)
	})
}
