package nix_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/proc"
)

// Real processes with the names of a hook and its ssh. This ssh and what it started hang:
// they do nothing about the signals that are there to be heard.
func TestEndALinkThatHangs(t *testing.T) {
	dir := t.TempDir()
	for name, script := range map[string]string{
		"__build-remote": "./ssh root@b1.example -x -- nix-daemon --stdio; echo $? >status",
		"root@b1.example": `trap '' TERM HUP INT PIPE
sleep 600 & echo $! >helper
while :; do wait; done`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(shell, filepath.Join(dir, "ssh")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	hook := exec.CommandContext(ctx, shell)
	hook.Args, hook.Dir = []string{"nix", "__build-remote", "3"}, dir
	if err := hook.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- hook.Wait() }()

	var links []nix.Link // to b1.example, with its helper
	for len(links) == 0 {
		all, err := nix.Links(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range all {
			if l.Builder == "b1.example" && len(l.Helpers()) == 1 {
				links = append(links, l)
			}
		}
	}
	if len(links) != 1 {
		t.Fatalf("links: %v", links)
	}
	helper := links[0].Helpers()[0]
	if !helper.Alive() {
		t.Fatalf("its helper %v is gone", helper)
	}

	begin := time.Now()
	if err := links[0].End(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	for what, id := range map[string]proc.ID{"ssh": links[0].Process, "what ssh started": helper} {
		if id.Alive() {
			t.Errorf("%s is still there", what)
		}
	}
	if err := <-ended; err != nil {
		t.Errorf("the hook: %v", err)
	}
	if status, err := os.ReadFile(filepath.Join(dir, "status")); err != nil || string(status) != "137\n" {
		t.Errorf("the hook saw its ssh end with %q, %v; want 137, killed", status, err)
	}
	if err := links[0].End(); err != nil {
		t.Errorf("once more: %v", err)
	}
}
