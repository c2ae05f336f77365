package testbed_test

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// A frozen program takes no step, whoever started it, and knows nothing of it afterwards.
func TestFreezeAndThaw(t *testing.T) {
	l := testbed.Start(t, bare(0))
	co := l.Host(testbed.Coordinator)
	const count = `n=0; while :; do n=$((n+1)); echo $n >"$1.new"; mv "$1.new" "$1"; test -e /tmp/enough && exit 7; sleep 0.02; done`
	steps := func(of string) int {
		text, err := co.Output(bounded(t), "sh", "-c", "cat /tmp/"+of+" 2>/dev/null || echo 0")
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	goesOn := func(of string) {
		t.Helper()
		was := steps(of)
		eventually(t, of+" going on", func() bool { return steps(of) > was })
	}
	standsStill := func(of string, while func()) {
		t.Helper()
		was := steps(of)
		while()
		if now := steps(of); now != was {
			t.Errorf("%s was at %d, and is at %d", of, was, now)
		}
	}

	// One belongs to this test, the other to the host, and a user's has sudo between.
	front := co.Command(bounded(t), "dash", "-c", count, "front", "/tmp/front")
	if err := front.Start(); err != nil {
		t.Fatal(err)
	}
	if err := co.Spawn(bounded(t), "counter", "bash", "-c", count, "back", "/tmp/back"); err != nil {
		t.Fatal(err)
	}
	user := co.CommandAs(bounded(t), testbed.Runner, "sudo", "-n", "dash", "-c", count, "user", "/tmp/user")
	if err := user.Start(); err != nil {
		t.Fatal(err)
	}
	all := []string{"front", "back", "user"}
	for _, name := range all {
		goesOn(name)
	}

	if err := co.Freeze(bounded(t), "bash -c"); err != nil {
		t.Fatal(err)
	}
	standsStill("back", func() { goesOn("front"); goesOn("user") })
	if err := co.Thaw(bounded(t), "bash"); err != nil {
		t.Fatal(err)
	}
	goesOn("back")

	if err := co.Freeze(bounded(t)); err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		standsStill(name, func() { time.Sleep(100 * time.Millisecond) })
	}
	processes, err := co.Processes()
	if err != nil || !slices.ContainsFunc(processes, func(p testbed.Process) bool { return p.Argv[0] == "nix-daemon" }) {
		t.Errorf("processes of a frozen host: %v, %v", processes, err)
	}
	if err := co.Thaw(bounded(t)); err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		goesOn(name)
	}

	// What started them notices their end.
	output(t, co, testbed.Root, "touch", "/tmp/enough")
	_ = front.Wait()
	_ = user.Wait()
	if a, b := front.ProcessState.ExitCode(), user.ProcessState.ExitCode(); a != 7 || b != 7 {
		t.Errorf("they ended with codes %d and %d, want 7", a, b)
	}
	if err := co.Freeze(bounded(t), "nobody"); err == nil || !strings.Contains(err.Error(), "no process of nobody") {
		t.Errorf("freezing what is not there: %v", err)
	}
}

// A frozen host dies like any other, and so do the commands on it.
func TestKillWhileFrozen(t *testing.T) {
	l := testbed.Start(t, bare(0))
	co := l.Host(testbed.Coordinator)
	cmd := co.Command(bounded(t), "sh", "-c", "echo started; sleep 1000; echo")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	if _, err := r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := co.Freeze(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if err := co.Kill(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("a command on a host that died succeeded")
	}
}

// A store of a given size can be filled: builds fail then, and its host's own disk has
// room all the same.
func TestStoreSize(t *testing.T) {
	const size = 64 << 20
	cfg := bare(1)
	cfg.StoreSize = map[string]int64{"builder-1": size}
	l := testbed.Start(t, cfg)
	b1 := l.Host("builder-1")
	native := output(t, b1, testbed.Root, "nix", "config", "show", "system")
	total := output(t, b1, testbed.Root, "df", "--output=size", "-B1", "/nix")
	if !strings.HasSuffix(total, fmt.Sprint(size)) {
		t.Errorf("/nix holds %s bytes, want %d", total, size)
	}
	if _, err := b1.Output(bounded(t), "dd", "if=/dev/zero", "of=/nix/filling", "bs=64K"); err == nil || !strings.Contains(err.Error(), "No space left on device") {
		t.Errorf("filling the store: %v", err)
	}
	output(t, b1, testbed.Root, "sh", "-c", "echo there is room >/var/tmp/room")
	if _, err := build(t, b1, native); err == nil {
		t.Error("a build in a full store succeeded")
	}
	output(t, b1, testbed.Root, "rm", "/nix/filling")
	if _, err := build(t, b1, native); err != nil {
		t.Error(err)
	}
}
