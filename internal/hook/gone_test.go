package hook_test

import (
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
)

// A Nix that was killed ends nothing and says nothing; only its ends of the pipes are closed.
func TestNixIsKilled(t *testing.T) {
	t.Run("while a build waits", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, nil, machine("b1", "hangs"))
		hanging(t, r)
		n := start(t, r.socket)
		n.asks()
		n.accepted()
		waiting := func() int { return r.Stats().Waiting[system] }
		r.eventually("it waits", func() bool { return waiting() == 1 })
		n.stderr.Close()
		r.eventually("nobody waits", func() bool { return waiting() == 0 })
		_ = n.cmd.Wait()
		n.exited = true
	})
	t.Run("while a silent build runs", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, nil, machine("b1", "hangs"))
		n, ssh := hanging(t, r)
		n.stderr.Close()
		r.eventually("ssh has ended", func() bool { return !ssh.Alive() })
		r.idle()
		_ = n.cmd.Wait()
		n.exited = true
		if got := r.Stats().Ended[scheduler.OutcomeBuilt]; got != 0 {
			t.Errorf("%d builds count as built", got)
		}
	})
}
