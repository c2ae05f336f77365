package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestBinary(t *testing.T) {
	const ours, theirs = "#!/bin/sh\necho nix-builders mine go1.26.0 here\n", "#!/bin/sh\n"
	for _, test := range []struct {
		name  string
		files map[string]string
		give  string // the input, below the directory of the files; the working directory
		code  int
		says  string
		holds string // DIR/bin, afterwards; a link as NAME->TARGET
	}{
		{
			"a directory", map[string]string{"nix-builders": ours, "nix-builders-hook": theirs, "tailscale": theirs, "tailscaled": theirs + "# daemon\n"},
			".", 0, "nix-builders mine, copied from .", "nix-builders nix-builders-hook tailscale tailscaled",
		},
		{
			"one program for client and daemon", map[string]string{"d/nix-builders": ours, "d/tailscale": theirs},
			"d", 0, "nix-builders mine, copied from d.", "nix-builders tailscale->tailscaled tailscaled",
		},
		{
			"the same by its other name", map[string]string{"d/nix-builders": ours, "d/tailscaled": theirs},
			"d/", 0, "nix-builders mine, copied from d/.", "nix-builders tailscale->tailscaled tailscaled",
		},
		{
			"two copies of one program", map[string]string{"d/nix-builders": ours, "d/tailscale": theirs, "d/tailscaled": theirs},
			"d", 0, "", "nix-builders tailscale->tailscaled tailscaled",
		},
		{
			"nix-builders alone", map[string]string{"my build": ours, "path/tailscale": theirs, "path/tailscaled": theirs},
			"my build", 0, "nix-builders mine, copied from my build.", "nix-builders",
		},
		{
			"nix-builders alone, without tailscale", map[string]string{"my build": ours},
			"my build", 1, "there are no tailscale and tailscaled on PATH", "",
		},
		{
			"no tailscale", map[string]string{"d/nix-builders": ours},
			"d", 1, "the directory d has no tailscale in it", "",
		},
		{
			"no nix-builders", map[string]string{"d/tailscale": theirs},
			"d", 1, "the directory d has no nix-builders in it", "",
		},
		{
			"nothing", nil,
			"bin/nix-builders", 1, "there is no bin/nix-builders", "",
		},
		{
			"for another machine", map[string]string{"d/nix-builders": "\x7fELF", "d/tailscale": theirs},
			"d", 1, "the nix-builders that came copied from d does not run here", "",
		},
		{
			"broken tailscale", map[string]string{"d/nix-builders": ours, "d/tailscale": "#!/bin/sh\nexit 3\n"},
			"d", 1, "the tailscale that came copied from d does not run here", "",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			a := newAction(t)
			a.env["PATH"] = tools(t, a.bin, "shasum")
			dir := t.TempDir()
			cmd := a.command(dir, test.give)
			cmd.Env = append(cmd.Env, "PATH="+a.env["PATH"]+":"+filepath.Join(cmd.Dir, "path"))
			for name, text := range test.files {
				// Whoever downloads an artefact of a workflow gets it without the mode.
				mode := os.FileMode(0o644)
				if filepath.Dir(name) == "path" {
					mode = 0o755
				}
				writeFile(t, filepath.Join(cmd.Dir, name), text, mode)
			}
			out, _ := cmd.CombinedOutput()
			result{string(out), cmd.ProcessState.ExitCode()}.says(t, test.code, test.says)
			if got := a.downloads(); got != nil {
				t.Errorf("asked for %v", got)
			}
			if test.code != 0 {
				empty(t, dir)
				return
			}
			if got := linked(t, filepath.Join(dir, "bin")); got != test.holds {
				t.Errorf("bin holds %q, want %q", got, test.holds)
			}
		})
	}
}

// linked is names with the targets of links.
func linked(t *testing.T, dir string) (all string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range entries {
		if i > 0 {
			all += " "
		}
		all += e.Name()
		if target, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			all += "->" + target
		}
	}
	return all
}

// tools is a PATH with bin and, of this machine's programs, only those that every system
// has, and these.
func tools(t *testing.T, bin string, names ...string) string {
	t.Helper()
	path := t.TempDir()
	for _, name := range append(names, "awk", "bash", "cat", "chmod", "cmp", "cp", "cut", "dirname", "find", "gzip", "ln", "mkdir",
		"mktemp", "mv", "rm", "rmdir", "sh", "sleep", "sort", "tail", "tar", "tr", "uname", "xargs") {
		program, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(program, filepath.Join(path, name)); err != nil {
			t.Fatal(err)
		}
	}
	return bin + ":" + path
}
