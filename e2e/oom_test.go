package e2e_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/image"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// TestOutOfMemory has the kernel kill builds on a builder that has too little memory for
// them: they are done on the other. A build that is killed by anybody else fails, at once.
//
// It runs alone: all hosts have one kernel, and its count of such kills is everybody's.
func TestOutOfMemory(t *testing.T) {
	for _, suite := range []string{image.Trixie, image.Sid} {
		t.Run(suite, func(t *testing.T) {
			// The agent, tailscaled and Nix have enough of it, the hungry of stories.nix don't.
			short := newMemoryGroup(t, 256<<20)
			lab := startLab(t, testbed.Config{Builders: 2, Suite: suite})
			o := &hungry{&hooked{rig: newRig(t, lab, "oom-"+suite, 2), suite: suite}}
			for _, host := range o.Builders {
				o.builder(host, preferred[host]...)
			}
			o.wantExit(o.coordinator(), 0)
			for _, host := range o.Builders {
				o.awaitState(host, "ready")
			}

			o.failsOnce()
			short.add(t, o.Host(victim))
			for _, attribute := range []string{"hungry", "hungryItself", "hungryCompiler"} {
				o.moves(attribute)
			}
			o.failsOnce() // what happened there before is not its excuse

			short.add(t, o.Host(survivor))
			o.givesUp()
			o.stop()
			o.wantReleased()
			o.leave()
		})
	}
}

// hungry is a cluster whose victim comes to be short of memory.
type hungry struct{ *hooked }

// nameOf is how a person is told of a host's builder.
func (o *hungry) nameOf(host string) string { return strings.ToLower(o.NameOf(host)) }

// failsOnce wants a build that kills itself to fail on the victim, and to be tried nowhere
// else.
func (o *hungry) failsOnce() {
	o.t.Helper()
	o.takesBuilds(victim)
	before := oomKills(o.t)
	p := o.story("killed")
	o.wantExit(p, 1)
	o.says(p, "on '"+o.nameOf(victim)+"'", "failed with exit code 137")
	if strings.Contains(p.Output(), " moves from ") || strings.Contains(p.Output(), " begins again ") {
		o.t.Errorf("it was tried again:\n%s", p.Output())
	}
	if n := oomKills(o.t) - before; n != 0 {
		o.t.Fatalf("the kernel has killed %d processes that were to end otherwise", n)
	}
}

// moves wants a build to be killed on the victim, by the kernel and for want of memory, and
// to be done on the survivor. A person is told why, and shown no error.
func (o *hungry) moves(attribute string) {
	o.t.Helper()
	o.takesBuilds(victim)
	before := oomKills(o.t)
	p := o.story(attribute)
	began := time.Now()
	if host := o.text(p); host != survivor {
		o.t.Errorf("%s was built on %s, want %s", attribute, host, survivor)
	}
	o.t.Logf("%s was built in %v", attribute, time.Since(began).Round(100*time.Millisecond))
	if n := oomKills(o.t) - before; n != 1 {
		o.t.Errorf("the kernel has killed %d processes for want of memory, want 1", n)
	}
	o.says(p, fmt.Sprintf("moves from %s to %s: it ran out of memory, and a process was killed\n", o.nameOf(victim), o.nameOf(survivor)))
	if strings.Contains(p.Output(), "\nerror:") {
		o.t.Errorf("a person is shown an error:\n%s", p.Output())
	}
}

// givesUp wants a build that no builder has the memory for to fail, and a person to learn of
// each try.
func (o *hungry) givesUp() {
	o.t.Helper()
	o.takesBuilds(victim)
	before := oomKills(o.t)
	p := o.story("hungry")
	o.wantExit(p, 1)
	if n := oomKills(o.t) - before; n != 4 {
		o.t.Errorf("the kernel has killed %d processes for want of memory, want 4", n)
	}
	o.says(p, "failed with exit code 137", "was begun 4 times and never finished", ": it ran out of memory, and a process was killed")
	if n := strings.Count(p.Output(), "warning: '/nix/store/"); n != 3 {
		o.t.Errorf("%d further tries were told of, want 3:\n%s", n, p.Output())
	}
}

// takesBuilds waits until a host gets builds: one that ended a build for no fault of the
// build's is left alone for a while.
func (o *hungry) takesBuilds(host string) {
	o.t.Helper()
	eventually(o.t, host+" gets builds", func() bool { return o.text(o.story("plain")) == host })
}

// oomKills is how many processes this machine's kernel has ended for want of memory.
func oomKills(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\noom_kill ")
	count, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.Atoi(count)
	if err != nil {
		t.Fatalf("/proc/vmstat has no count of oom_kill: %v", err)
	}
	return n
}

// A memoryGroup is a control group of this machine's whose processes, and all that they
// start, share so much memory and no more.
type memoryGroup string // its directory

// newMemoryGroup makes one that ends with the test. It is to be made before the lab whose
// hosts it is for: it can't go before they do. A test on a machine whose kernel has none is
// skipped, in CI it fails.
func newMemoryGroup(t *testing.T, bytes int64) memoryGroup {
	t.Helper()
	testbed.Require(t)
	type limit struct {
		file  string
		bytes int64
	}
	top, limits := "/sys/fs/cgroup/memory", []limit{{"memory.limit_in_bytes", bytes}, {"memory.memsw.limit_in_bytes", bytes}}
	if _, err := os.Stat(top); errors.Is(err, fs.ErrNotExist) { // version 2, and no version 1 beside it
		top, limits = "/sys/fs/cgroup", []limit{{"memory.max", bytes}, {"memory.swap.max", 0}}
		if err := os.WriteFile(filepath.Join(top, "cgroup.subtree_control"), []byte("+memory"), 0); err != nil {
			withoutGroups(t, err)
		}
	}
	g := memoryGroup(filepath.Join(top, fmt.Sprintf("nix-builders-test-%d", os.Getpid())))
	if err := os.Mkdir(string(g), 0o755); err != nil {
		withoutGroups(t, err)
	}
	t.Cleanup(func() {
		eventually(t, "without the control group "+string(g), func() bool { return os.Remove(string(g)) == nil })
	})
	for _, l := range limits {
		err := os.WriteFile(filepath.Join(string(g), l.file), strconv.AppendInt(nil, l.bytes, 10), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // not every kernel counts what is swapped out
			t.Fatal(err)
		}
	}
	return g
}

func withoutGroups(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	t.Skipf("this machine lets nobody limit the memory of processes: %v", err)
}

// add makes all that runs on a host a part of the group.
func (g memoryGroup) add(t *testing.T, h *testbed.Host) {
	t.Helper()
	procs := filepath.Join(string(g), "cgroup.procs")
	// Somebody who is not in it yet may start another.
	eventually(t, "all of "+h.Name()+" in "+string(g), func() bool {
		all, err := h.Processes()
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(procs)
		if err != nil {
			t.Fatal(err)
		}
		in := strings.Fields(string(text))
		all = slices.DeleteFunc(all, func(p testbed.Process) bool { return slices.Contains(in, strconv.Itoa(p.Outside)) })
		for _, p := range all {
			if err := os.WriteFile(procs, []byte(strconv.Itoa(p.Outside)), 0); err != nil && !errors.Is(err, syscall.ESRCH) {
				t.Fatalf("limit the memory of %s: %v", p, err)
			}
		}
		return len(all) == 0
	})
}
