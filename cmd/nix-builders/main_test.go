package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"nix-builders":      main,
		"stop-nix-builders": main,
	})
}

// The program as people call it, one story a file in testdata/script.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("NIX_BUILDERS_STATE_DIR", env.WorkDir+"/state")
			return nil
		},
	})
}
