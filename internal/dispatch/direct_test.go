package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/dispatch"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
)

// kept is what the dispatcher wants to be kept ready.
type kept struct {
	mu    sync.Mutex
	addrs []string
}

func (k *kept) set(addrs []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.addrs = addrs
}

func (k *kept) String() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return strings.Join(k.addrs, " ")
}

// direct gives the rig's dispatcher a way without ssh.
func (r *rig) direct(only bool) *kept {
	k := new(kept)
	r.cfg.Direct = &dispatch.Direct{Program: "/run/x/nix-builders", Dir: ".", Only: only, Keep: k.set}
	return k
}

// serving is an offer of a builder whose agent serves its store.
func serving() coordinator.Offer {
	o := offer()
	o.StorePort = new(8379)
	return o
}

// way tells how the machines file has a machine: its store's URI.
func (r *rig) way(name string) string {
	for line := range strings.Lines(r.text(r.files.Machines)) {
		if nix.LineName(line) == name {
			uri, _, _ := strings.Cut(line, " ")
			return uri
		}
	}
	return ""
}

const (
	directURI = "ssh-ng://localhost?remote-program=/run/x/nix-builders%20dial-store%20100.64.0.1:8379%20.%20b1"
	sshURI    = "ssh-ng://root@b1?remote-program=/nix/var/nix/profiles/default/bin/nix-daemon"
)

func TestBuildersAreReachedDirectlyWhereThatWorks(t *testing.T) {
	blocked := errors.New("its port does not answer")
	for name, tc := range map[string]struct {
		offer             coordinator.Offer
		only              bool
		noDirect, noSSH   error
		way, state, keeps string
		reason            string
	}{
		"it does":                {offer: serving(), way: directURI, state: "ready", keeps: "100.64.0.1:8379"},
		"it does, though no ssh": {offer: serving(), noSSH: blocked, way: directURI, state: "ready", keeps: "100.64.0.1:8379"},
		"the port is closed":     {offer: serving(), noDirect: blocked, way: sshURI, state: "ready", reason: "its store answered over SSH alone: its port does not answer"},
		"both are closed":        {offer: serving(), noDirect: blocked, noSSH: errors.New("ssh does not answer"), state: "joined", reason: "ssh does not answer"},
		"nobody serves":          {offer: offer(), way: sshURI, state: "ready", reason: "its store answered over SSH alone: its agent does not serve"},
		"only so":                {offer: serving(), only: true, way: directURI, state: "ready", keeps: "100.64.0.1:8379"},
		"only so, and closed":    {offer: serving(), only: true, noDirect: blocked, state: "joined", reason: "its port does not answer"},
		"only so, nobody serves": {offer: offer(), only: true, state: "rejected", reason: "does not serve its store"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := build(t, "b1")
				k := r.direct(tc.only)
				r.check = func(_ context.Context, m nix.Machine) error {
					if m.Direct.Addr != "" {
						return tc.noDirect
					}
					return tc.noSSH
				}
				r.run()
				r.joinAs(1, "b1", uuid.New(), tc.offer)
				settle()
				b := r.builder("b1")
				if got := fmt.Sprint(b.State); got != tc.state || !strings.Contains(b.Reason, tc.reason) {
					t.Errorf("b1 is %s (%s), want %s (%s)", got, b.Reason, tc.state, tc.reason)
				}
				if diff := cmp.Diff(tc.way, r.way("b1")); diff != "" {
					t.Errorf("its store (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(tc.keeps, k.String()); diff != "" {
					t.Errorf("kept ready (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// A port that swallows everything costs ten seconds, not the time of a whole check.
func TestAPortThatSwallowsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := build(t, "b1")
		r.direct(false)
		r.check = func(ctx context.Context, m nix.Machine) error {
			if m.Direct.Addr == "" {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		r.run()
		r.joinAs(1, "b1", uuid.New(), serving())
		settle()
		r.wantState("b1", coordinator.Joined)
		pass(10 * time.Second)
		r.wantState("b1", coordinator.StateReady)
		if diff := cmp.Diff(sshURI, r.way("b1")); diff != "" {
			t.Errorf("its store (-want +got):\n%s", diff)
		}
	})
}

// What is kept ready follows the machines: what rests or has gone is not.
func TestWhatIsKeptReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := build(t, "b1", "b2")
		k := r.direct(false)
		r.run()
		instance := uuid.New()
		r.joinAs(1, "b1", instance, serving())
		r.joinAs(2, "b2", uuid.New(), serving())
		settle()
		want := func(addrs string) {
			t.Helper()
			if diff := cmp.Diff(addrs, k.String()); diff != "" {
				t.Errorf("kept ready (-want +got):\n%s", diff)
			}
		}
		want("100.64.0.1:8379 100.64.0.2:8379")
		more := serving()
		more.MaxJobs = new(2)
		r.renew(1, "b1", instance, more, 50) // GiB that are free
		if way := r.way("b1"); way != directURI {
			t.Errorf("with another offer it is reached at %s", way)
		}
		r.renew(1, "b1", instance, more, 3)
		want("100.64.0.2:8379")
		if err := r.cluster.Depart(t.Context(), r.node(2, "b2"), r.builder("b2").ID, coordinator.Departure{Reason: "cancelled"}); err != nil {
			t.Fatal(err)
		}
		settle()
		want("100.64.0.1:8379") // it is the last, and no longer cordoned
	})
}
