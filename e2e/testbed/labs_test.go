package testbed_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

func TestBootMore(t *testing.T) {
	l := testbed.Start(t, bare(1))
	h, err := l.Boot(bounded(t), testbed.HostSpec{Name: "laptop"})
	if err != nil {
		t.Fatal(err)
	}
	if got := output(t, h, testbed.Root, "hostname"); got != "laptop" {
		t.Errorf("hostname: %s", got)
	}
	if _, err := l.Boot(bounded(t), testbed.HostSpec{Name: "laptop"}); err == nil {
		t.Error("a second host of the same name was booted")
	}
	if _, err := l.Boot(bounded(t), testbed.HostSpec{Name: "../x"}); err == nil {
		t.Error("a host was booted under a name that is a path")
	}
	again, err := testbed.Open("", l.Name())
	if err != nil {
		t.Fatal(err)
	}
	if got := output(t, again.Host("laptop"), testbed.Root, "hostname"); got != "laptop" {
		t.Errorf("hostname of the opened lab's host: %s", got)
	}
}

func TestTwoLabsAtOnce(t *testing.T) {
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			l := testbed.Start(t, bare(1))
			co := l.Host(testbed.Coordinator)
			if err := co.JoinTailnet(bounded(t), testbed.Tailnet{Hostname: l.Name(), Tags: []string{"tag:nix-ci-coordinator"}}); err != nil {
				t.Error(err)
				return
			}
			nodes, err := l.Control().Nodes(bounded(t))
			if err != nil || len(nodes) != 1 || nodes[0].Name != l.Name() {
				t.Errorf("nodes of lab %s: %v, %v", l.Name(), nodes, err)
			}
		})
	}
	wg.Wait()
}

func TestCrashedLabIsRemoved(t *testing.T) {
	testbed.Require(t)
	cfg := bare(2)
	cfg.Name = fmt.Sprintf("crash-%d", os.Getpid())
	cfg.Logf = t.Logf
	testbed.FromEnv(&cfg, os.Getenv)
	t.Cleanup(func() {
		if err := testbed.Down(context.Background(), "", cfg.Name); err != nil {
			t.Error(err)
		}
	})
	l, err := testbed.Up(bounded(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	// Something busy that has cut its ties, as a detached server would.
	if err := l.Host("builder-1").Spawn(bounded(t), "busy", "sleep", "1000"); err != nil {
		t.Fatal(err)
	}
	left, err := testbed.Leftovers("", cfg.Name)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(left, func(s string) bool { return strings.HasSuffix(s, ": sleep 1000") }) {
		t.Errorf("a process in a host is not among what is left: %q", left)
	}
	// The worst that a crash can leave: no record at all of what runs.
	dir := filepath.Join(testbed.DefaultDir, cfg.Name)
	if err := os.Remove(filepath.Join(dir, "lab.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "hosts", "builder-2", "host.json")); err != nil {
		t.Fatal(err)
	}

	l, err = testbed.Up(bounded(t), cfg) // over it
	if err != nil {
		t.Fatal(err)
	}
	output(t, l.Host("builder-2"), testbed.Root, "true")
	for range 2 {
		if err := testbed.Down(bounded(t), "", cfg.Name); err != nil {
			t.Fatal(err)
		}
	}
	left, err = testbed.Leftovers("", cfg.Name)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	if _, err := testbed.Open("", cfg.Name); err == nil || !strings.Contains(err.Error(), "not up") {
		t.Errorf("open a lab that is down: %v", err)
	}
}

// A test that is killed can't remove its lab; the next one does.
func TestOrphanIsRemoved(t *testing.T) {
	testbed.Require(t)
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	cfg := bare(0)
	cfg.Name = fmt.Sprintf("t%d-abc", gone.Process.Pid)
	testbed.FromEnv(&cfg, os.Getenv)
	if _, err := testbed.Up(bounded(t), cfg); err != nil {
		t.Fatal(err)
	}
	testbed.Start(t, bare(0))
	left, err := testbed.Leftovers("", cfg.Name)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}
