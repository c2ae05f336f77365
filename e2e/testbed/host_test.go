package testbed_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

func TestHostsAreMachinesOfTheirOwn(t *testing.T) {
	l := testbed.Start(t, bare(2))
	var names []string
	for _, h := range l.Hosts() {
		if got := output(t, h, testbed.Root, "hostname"); got != h.Name() {
			t.Errorf("%s calls itself %s", h.Name(), got)
		}
		names = append(names, h.Name())
		if err := h.WriteFile(bounded(t), "/nix/mark", []byte(h.Name()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"coordinator", "builder-1", "builder-2"}, names); diff != "" {
		t.Errorf("hosts (-want +got):\n%s", diff)
	}
	for _, h := range l.Hosts() {
		got, err := h.ReadFile(bounded(t), "/nix/mark")
		if err != nil || string(got) != h.Name() {
			t.Errorf("/nix/mark on %s: %q, %v", h.Name(), got, err)
		}
		all, err := h.Processes()
		if err != nil || len(all) != 1 || all[0].Argv[0] != "nix-daemon" {
			t.Errorf("processes of %s: %v, %v", h.Name(), all, err)
		}
	}
	// They reach each other, and nothing beyond.
	co := l.Host(testbed.Coordinator)
	output(t, co, testbed.Root, "sh", "-c", "ip neigh show to "+l.Host("builder-1").IP().String()+" | grep -q PERMANENT")
	for _, user := range []string{testbed.Root, testbed.Runner} {
		want := fmt.Sprintf("%s /%s", user, strings.Replace("home/"+user, "home/root", "root", 1))
		if got := output(t, co, user, "sh", "-c", `echo "$(id -un) $PWD"`); got != want {
			t.Errorf("a command of %s is run as %q, want %q", user, got, want)
		}
	}
	if got := output(t, co, testbed.Runner, "sudo", "-n", "id", "-un"); got != "root" {
		t.Errorf("sudo of the runner makes %s", got)
	}
}

func TestCommandEnds(t *testing.T) {
	l := testbed.Start(t, bare(0))
	co := l.Host(testbed.Coordinator)
	sleeping := func() bool {
		all, err := co.Processes()
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(all, func(p testbed.Process) bool { return p.Argv[0] == "sleep" })
	}

	ctx, cancel := context.WithCancel(bounded(t))
	cmd := co.Command(ctx, "sh", "-c", "sleep 1000; echo")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "sleeping", sleeping)
	cancel()
	if err := cmd.Wait(); err == nil {
		t.Error("a cancelled command succeeded")
	}
	eventually(t, "killed with its descendants", func() bool { return !sleeping() })

	// A signal reaches the program, whose exit status comes back.
	cmd = co.Command(bounded(t), "sh", "-c", `trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.05; done`)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	if line, err := r.ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if err := testbed.Signal(cmd, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(r)
	if err != nil || string(rest) != "caught\n" {
		t.Errorf("%q, %v", rest, err)
	}
	cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 7 {
		t.Errorf("exit status %d, want 7", got)
	}
}
