package testbed_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// bare is a lab that doesn't depend on the program that it is there to test.
func bare(builders int) testbed.Config {
	return testbed.Config{Builders: builders, Programs: []string{}}
}

// output is the host's answer to argv, which must succeed.
func output(t *testing.T, h *testbed.Host, user string, argv ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := h.OutputAs(ctx, user, argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// eventually waits until ok; it fails the test after ten seconds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s: not %s", what)
		}
	}
}

func TestHostsAreMachinesOfTheirOwn(t *testing.T) {
	l := testbed.Start(t, bare(2))
	var names []string
	for _, h := range l.Hosts() {
		if got := output(t, h, testbed.Root, "hostname"); got != h.Name() {
			t.Errorf("%s calls itself %s", h.Name(), got)
		}
		names = append(names, h.Name())
		if err := h.WriteFile(t.Context(), "/nix/mark", []byte(h.Name()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"coordinator", "builder-1", "builder-2"}, names); diff != "" {
		t.Errorf("hosts (-want +got):\n%s", diff)
	}
	for _, h := range l.Hosts() {
		got, err := h.ReadFile(t.Context(), "/nix/mark")
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

// leaf is a derivation that tells who built it.
const leaf = `derivation {
	name = "leaf"; inherit system;
	builder = "${builtins.path { path = /opt/bb; name = "bb"; }}/bin/sh";
	PATH = builtins.path { path = /opt/bb; name = "bb"; } + "/bin";
	args = [ "-c" "echo $(hostname) $(id -un) > $out" ];
}`

func build(t *testing.T, h *testbed.Host, system string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := h.OutputAs(ctx, testbed.Runner, "nix-build", "--no-out-link", "--expr", fmt.Sprintf("let system = %q; in %s", system, leaf))
	if err != nil {
		return "", err
	}
	return output(t, h, testbed.Runner, "cat", out), nil
}

func TestNixIsMultiUser(t *testing.T) {
	cfg := bare(1)
	cfg.NixConf = map[string]string{"builder-1": "extra-platforms = aarch64-linux"}
	l := testbed.Start(t, cfg)
	co, b1 := l.Host(testbed.Coordinator), l.Host("builder-1")

	native := output(t, co, testbed.Root, "nix", "config", "show", "system")
	got, err := build(t, co, native)
	if err != nil {
		t.Fatal(err)
	}
	if got != "coordinator nixbld1" {
		t.Errorf("built by %q, want coordinator nixbld1", got)
	}
	if got := output(t, co, testbed.Runner, "nix", "store", "info", "--json"); !strings.Contains(got, `"trusted":false`) && !strings.Contains(got, `"trusted":0`) {
		t.Errorf("the runner is trusted: %s", got)
	}

	// Only the host that passes for the other architecture builds for it.
	if _, err := build(t, co, "aarch64-linux"); err == nil {
		t.Error("the coordinator built for aarch64-linux")
	}
	if got, err := build(t, b1, "aarch64-linux"); err != nil || got != "builder-1 nixbld1" {
		t.Errorf("builder-1 for aarch64-linux: %q, %v", got, err)
	}

	// The daemon comes back, with its configuration read anew.
	output(t, b1, testbed.Root, "sh", "-c", "echo 'max-jobs = 17' >>/etc/nix/nix.conf; kill $(cat /run/nix-daemon.pid)")
	eventually(t, "a daemon with the new configuration", func() bool {
		_, err := build(t, b1, native)
		return err == nil
	})
}

func TestPassesForSystemd(t *testing.T) {
	cfg := bare(0)
	cfg.Systemd = true
	co := testbed.Start(t, cfg).Host(testbed.Coordinator)
	output(t, co, testbed.Root, "test", "-d", "/run/systemd/system")
	output(t, co, testbed.Root, "systemctl", "is-active", "--quiet", "nix-daemon.service")
	before := output(t, co, testbed.Root, "cat", "/run/nix-daemon.pid")
	output(t, co, testbed.Root, "systemctl", "restart", "nix-daemon.service")
	if after := output(t, co, testbed.Root, "cat", "/run/nix-daemon.pid"); after == before {
		t.Errorf("the daemon is %s before and after its restart", before)
	}
	output(t, co, testbed.Runner, "nix", "store", "info") // it answers
	if out, err := co.Output(t.Context(), "systemctl", "restart", "sshd"); err == nil {
		t.Errorf("a service that is not there: %s", out)
	}
}

func TestCutIsSilent(t *testing.T) {
	l := testbed.Start(t, bare(1))
	co, b1 := l.Host(testbed.Coordinator), l.Host("builder-1")
	if err := b1.Spawn(t.Context(), "echo", "busybox", "nc", "-ll", "-p", "7000", "-e", "/bin/cat"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "listening", func() bool {
		return strings.Contains(output(t, b1, testbed.Root, "ss", "-Hltn"), ":7000")
	})

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := co.Command(ctx, "bash", "-euc", fmt.Sprintf(
		`exec 3<>/dev/tcp/%s/7000; while read -r line; do echo "$line" >&3; read -r answer <&3; echo "$answer"; done`, b1.IP()))
	in, err := client.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := client.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	answers := make(chan string)
	go func() {
		defer close(answers)
		for s := bufio.NewScanner(out); s.Scan(); {
			answers <- s.Text()
		}
	}()
	say := func(line string) { fmt.Fprintln(in, line) }
	hear := func(within time.Duration) string {
		select {
		case a, ok := <-answers:
			if !ok {
				return "the connection ended"
			}
			return a
		case <-time.After(within):
			return "silence"
		}
	}

	say("before")
	if got := hear(10 * time.Second); got != "before" {
		t.Fatalf("before the cut: %s", got)
	}
	if err := b1.Cut(ctx); err != nil {
		t.Fatal(err)
	}
	say("during")
	if got := hear(1500 * time.Millisecond); got != "silence" {
		t.Fatalf("during the cut: %s", got)
	}
	// A new connection hangs too, rather than being refused.
	if out, err := co.Output(ctx, "timeout", "1", "bash", "-c", fmt.Sprintf("echo >/dev/tcp/%s/7000", b1.IP())); err == nil || !strings.Contains(err.Error(), "exit status 124") {
		t.Errorf("a new connection during the cut: %q, %v", out, err)
	}
	if err := b1.Heal(ctx); err != nil {
		t.Fatal(err)
	}
	if got := hear(20 * time.Second); got != "during" {
		t.Fatalf("after the cut: %s", got)
	}
	in.Close()
	if err := client.Wait(); err != nil {
		t.Error(err)
	}
}

func TestKillAndRestart(t *testing.T) {
	l := testbed.Start(t, bare(1))
	b1 := l.Host("builder-1")
	native := output(t, b1, testbed.Root, "nix", "config", "show", "system")
	if _, err := build(t, b1, native); err != nil {
		t.Fatal(err)
	}
	before := output(t, b1, testbed.Root, "ls", "/nix/store")
	for range 2 {
		if err := b1.Kill(t.Context()); err != nil { // twice: it is idempotent
			t.Fatal(err)
		}
	}
	if b1.Alive() {
		t.Error("alive after it was killed")
	}
	if _, err := b1.Output(t.Context(), "true"); err == nil || !strings.Contains(err.Error(), "builder-1") {
		t.Errorf("a command on a dead host: %v", err)
	}
	if err := b1.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, output(t, b1, testbed.Root, "ls", "/nix/store")); diff != "" {
		t.Errorf("store after the restart (-want +got):\n%s", diff)
	}
	if _, err := build(t, b1, native); err != nil {
		t.Error(err)
	}
	output(t, l.Host(testbed.Coordinator), testbed.Root, "busybox", "ping", "-c1", "-W2", b1.IP().String())
}

func TestBootMore(t *testing.T) {
	l := testbed.Start(t, bare(1))
	h, err := l.Boot(t.Context(), testbed.HostSpec{Name: "laptop"})
	if err != nil {
		t.Fatal(err)
	}
	if got := output(t, h, testbed.Root, "hostname"); got != "laptop" {
		t.Errorf("hostname: %s", got)
	}
	if _, err := l.Boot(t.Context(), testbed.HostSpec{Name: "laptop"}); err == nil {
		t.Error("a second host of the same name was booted")
	}
	if _, err := l.Boot(t.Context(), testbed.HostSpec{Name: "../x"}); err == nil {
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
			if err := co.JoinTailnet(t.Context(), testbed.Tailnet{Hostname: l.Name(), Tags: []string{"tag:nix-ci-coordinator"}}); err != nil {
				t.Error(err)
				return
			}
			nodes, err := l.Control().Nodes(t.Context())
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
	l, err := testbed.Up(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	// Something busy that has cut its ties, as a detached server would.
	if err := l.Host("builder-1").Spawn(t.Context(), "busy", "sleep", "1000"); err != nil {
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

	l, err = testbed.Up(t.Context(), cfg) // over it
	if err != nil {
		t.Fatal(err)
	}
	output(t, l.Host("builder-2"), testbed.Root, "true")
	for range 2 {
		if err := testbed.Down(t.Context(), "", cfg.Name); err != nil {
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

	ctx, cancel := context.WithCancel(t.Context())
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
	cmd = co.Command(t.Context(), "bash", "-c", `trap 'echo caught; exit 7' TERM; echo ready; while :; do read -rt 1000 <> <(:) || :; done`)
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
