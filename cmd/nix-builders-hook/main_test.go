package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The test's own binary is the program, when it is called so.
func TestMain(m *testing.M) {
	if name := filepath.Base(os.Args[0]); name == "nix-builders" || name == "nix-builders-hook" {
		os.Exit(run(os.Args))
	}
	os.Exit(m.Run())
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "nix-builders") // the link that Nix calls
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	tailscaled := t.TempDir()
	if err := os.WriteFile(filepath.Join(tailscaled, "dial.json"), []byte(`{"lease_seconds":3,"userspace":true}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		args string
		says string
		code int
	}{
		"nothing":                  {"", "nix-builders-hook: want build-hook or dial-store", 2},
		"a command of the other":   {"status", "nix-builders status: want build-hook or dial-store; nix-builders has the other commands", 2},
		"a hook without verbosity": {"build-hook", "nix-builders build-hook: want [SOCKET [MACHINES]] VERBOSITY", 2},
		"no address":               {"dial-store", "nix-builders dial-store: want ADDRESS:PORT DIR", 2},
		"nobody is there":          {"dial-store 127.0.0.1:1 - b1 --stdio", "nix-builders dial-store: connect to the builder at 127.0.0.1:1: ", 1},
		// The other program would be in the directory of the test's binary.
		"only tailscaled can connect": {"dial-store 127.0.0.1:1 " + tailscaled, "can't ask tailscaled for one: run " + filepath.Dir(self), 1},
	} {
		t.Run(name, func(t *testing.T) {
			var said bytes.Buffer
			cmd := exec.CommandContext(t.Context(), program, strings.Fields(test.args)...)
			cmd.Stderr = &said
			_ = cmd.Run() // the code says it
			if code := cmd.ProcessState.ExitCode(); code != test.code || !strings.Contains(said.String(), test.says) {
				t.Errorf("exit code %d, want %d; it says %q, want %q", code, test.code, said.String(), test.says)
			}
		})
	}
}

// Where only tailscaled can connect, the nix-builders beside it does it.
func TestGoesOnAsTheOther(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"nix-builders-hook": text, "nix-builders": []byte("#!/bin/sh\necho \"$@\"\n"), "dial.json": []byte(`{"userspace":true}`),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(dir, "nix-builders-hook"), "dial-store", "100.64.0.7:8379", ".", "--stdio").CombinedOutput()
	if want := "dial-store 100.64.0.7:8379 . --stdio\n"; err != nil || string(out) != want {
		t.Errorf("%v: %q, want %q", err, out, want)
	}
}
