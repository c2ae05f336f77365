package proc_test

import (
	"bufio"
	"context"
	"os/exec"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/proc"
)

// A tree whose processes ignore what asks them to end, and one that grows all the time.
func TestKillTree(t *testing.T) {
	for name, script := range map[string]string{
		"deep":    `trap "" TERM HUP INT; (trap "" TERM HUP INT; (sleep 60; :) & sleep 60; :) & echo up; sleep 60; :`,
		"growing": `echo up; while :; do (sleep 5; sleep 5) & sleep 0.01; done`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command("sh", "-c", script)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			id, err := proc.Of(cmd.Process.Pid)
			if err != nil {
				t.Fatal(err)
			}
			var tree []proc.ID
			for len(tree) < 3 {
				if tree, err = proc.Tree(id.PID); err != nil {
					t.Fatal(err)
				}
			}
			if tree[0] != id {
				t.Errorf("the tree of %v begins with %v", id, tree[0])
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if err := id.KillTree(ctx); err != nil {
				t.Error(err)
			}
			for _, p := range tree {
				if p.Alive() {
					t.Errorf("%v lives", p)
				}
			}
			_ = cmd.Wait() // it was killed
			if err := id.KillTree(ctx); err != nil {
				t.Errorf("kill a tree that is gone: %v", err)
			}
		})
	}
}
