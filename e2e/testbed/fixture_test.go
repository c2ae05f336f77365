package testbed_test

import (
	"context"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// bare is a lab that doesn't depend on the program that it is there to test.
func bare(builders int) testbed.Config {
	return testbed.Config{Builders: builders, Programs: []string{}}
}

// bounded is the test's context, for a minute from now.
func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// output is the host's answer to argv, which must succeed.
func output(t *testing.T, h *testbed.Host, user string, argv ...string) string {
	t.Helper()
	out, err := h.OutputAs(bounded(t), user, argv...)
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
