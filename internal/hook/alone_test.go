package hook_test

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

// A scheduler that has died and is about to be started again, or that hangs, is waited for: by
// Nix' own hook a build would be lost with its builder. What none of its machines can do, and
// what Nix asks when there is no scheduler at all, goes to that hook at once.
func TestSchedulerThatDoesNotAnswer(t *testing.T) {
	file := func(t *testing.T) (name string) {
		name = filepath.Join(t.TempDir(), "machines")
		if err := os.WriteFile(name, []byte("ssh-ng://b1.example?builds "+system+" - 1 1 kvm\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return name
	}
	// dead ends the rig's scheduler as kill -9 does: its socket stays.
	dead := func(t *testing.T, r *rig) {
		r.end()
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: r.socket, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		ln.SetUnlinkOnClose(false)
		ln.Close()
	}
	// hung makes one that takes connections and says nothing, until it is let go.
	hung := func(t *testing.T, r *rig) {
		r.end()
		ln, err := net.Listen("unix", r.socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		// Its backlog takes them.
	}
	for name, strike := range map[string]func(*testing.T, *rig){"dead": dead, "hung": hung} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			strike(t, r)
			r.builders = "@" + file(t)
			n := start(t, r.socket, "MACHINES="+r.builders[1:])
			n.asks("builders", r.builders)
			if promise := n.accepted(); promise == "b1" {
				t.Error("a slot was promised by nobody")
			}
			if err := os.Remove(r.socket); err != nil {
				t.Fatal(err)
			}
			r.serve(nil, machine("b1", "builds"))
			t.Cleanup(func() { r.end() })
			n.until("builds on 'b1' after waiting")
			n.wantEnd(0, nil, `"level":0`)
			r.wantBuilt("b1")
		})
	}
	t.Run("for good", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, nil)
		dead(t, r)
		r.builders = "@" + file(t)
		n := start(t, r.socket, "MACHINES="+r.builders[1:], "PATIENCE=1ms")
		n.asks("builders", r.builders)
		n.accepted()
		n.until("Nix looks for a builder")
		r.eventually("the dead socket is gone", func() bool {
			_, err := os.Lstat(r.socket)
			return os.IsNotExist(err)
		})
	})
	t.Run("nobody can do it", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, nil)
		dead(t, r)
		other := file(t)
		if err := os.WriteFile(other, []byte("ssh-ng://b1.example?builds riscv64-linux\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		told := filepath.Join(t.TempDir(), "told")
		n := start(t, r.socket, "MACHINES="+other, "COPY_TO="+told)
		n.asks("builders", "@"+other)
		n.stdin.Close()
		if code := n.ends(); code != 42 {
			t.Errorf("it ended with %d, want 42", code)
		}
	})
}
