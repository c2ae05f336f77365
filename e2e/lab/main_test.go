package main

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/image"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"lab": main})
}

// TestArguments needs nothing of the machine.
func TestArguments(t *testing.T) {
	testscript.Run(t, testscript.Params{Files: []string{"testdata/arguments.txtar"}})
}

// TestByHand works on a lab as a person would.
func TestByHand(t *testing.T) {
	testbed.Require(t)
	module, err := image.FindModule(".")
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("hand-%d", os.Getpid())
	t.Cleanup(func() { // if the script stops half way
		if err := testbed.Down(context.Background(), "", name); err != nil {
			t.Error(err)
		}
	})
	testscript.Run(t, testscript.Params{
		Files: []string{"testdata/by-hand.txtar"},
		Setup: func(e *testscript.Env) error {
			// The lab builds programs, so it needs the user's own caches.
			e.Setenv("HOME", os.Getenv("HOME"))
			e.Setenv("NIX_BUILDERS_LAB_CACHE", os.Getenv("NIX_BUILDERS_LAB_CACHE"))
			e.Setenv("MODULE", module)
			e.Setenv("NAME", name)
			return nil
		},
	})
}
