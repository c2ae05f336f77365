package silence_test

import (
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/silence"
)

// Whatever the lease is, a connection is gone within it, even if data is sent just before
// probes would have found that nobody is there. No connection is given up after a single
// lost packet.
func TestSilence(t *testing.T) {
	for _, lease := range []time.Duration{3 * time.Second, 4 * time.Second, 6 * time.Second, 10 * time.Second,
		45 * time.Second, time.Minute, 5 * time.Minute, time.Hour} {
		idle, unanswered := silence.Times(lease)
		if idle+unanswered > lease {
			t.Errorf("lease %v: probes take %v and then data %v", lease, idle, unanswered)
		}
		if unanswered < lease/4 {
			t.Errorf("lease %v: data has %v, which is hasty", lease, unanswered)
		}
		// A poll that waits is not ended by probes: it would count as broken, and the builder
		// have less than its lease.
		if poll := lease / 3; idle <= poll {
			t.Errorf("lease %v: probes take %v, no longer than a poll, %v", lease, idle, poll)
		}
	}
	// 20 s of a dead link are no reason to end a connection under the default lease.
	if idle, unanswered := silence.Times(45 * time.Second); min(idle, unanswered) < 20*time.Second {
		t.Errorf("a lease of 45 s: %v and %v", idle, unanswered)
	}
}
