package testbed_test

import (
	"bufio"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

func TestCutIsSilent(t *testing.T) {
	l := testbed.Start(t, bare(1))
	co, b1 := l.Host(testbed.Coordinator), l.Host("builder-1")
	if err := b1.Spawn(bounded(t), "echo", "busybox", "nc", "-ll", "-p", "7000", "-e", "/bin/cat"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "listening", func() bool {
		return strings.Contains(output(t, b1, testbed.Root, "ss", "-Hltn"), ":7000")
	})

	ctx := bounded(t)
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
		if err := b1.Kill(bounded(t)); err != nil { // twice: it is idempotent
			t.Fatal(err)
		}
	}
	if b1.Alive() {
		t.Error("alive after it was killed")
	}
	if _, err := b1.Output(bounded(t), "true"); err == nil || !strings.Contains(err.Error(), "builder-1") {
		t.Errorf("a command on a dead host: %v", err)
	}
	if err := b1.Restart(bounded(t)); err != nil {
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
