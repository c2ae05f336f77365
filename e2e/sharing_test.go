package e2e_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/image"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

const shareEnv = "NIX_BUILDERS_SHARE_PATHS=true"

// payload is how many bytes the builders share that build passed-on.nix.
const payload = 40 << 20

// tailnetBytes is how many bytes a host has sent to the tailnet.
func (r *rig) tailnetBytes(host string) int64 {
	r.t.Helper()
	n, err := strconv.ParseInt(r.must(host, "cat", "/sys/class/net/tailscale0/statistics/tx_bytes"), 10, 64)
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// TestSharing builds what several builders need on one of them. The others take it from
// there: the coordinator, which has it too, sends next to nothing. A builder that can't be
// reached by its peers costs no build.
func TestSharing(t *testing.T) {
	for _, suite := range []string{image.Trixie, image.Sid} {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			lab := startLab(t, testbed.Config{Builders: 3, Suite: suite})
			h := &hooked{rig: newRig(t, lab, "share-"+suite, 3), suite: suite}
			h.Env["NIX_BUILDERS_MAX_JOBS"] = "1"
			h.rig.ready(shareEnv)
			before := h.tailnetBytes(h.Coordinator)
			h.sharedBy(h.build("passed-on.nix"), 3)
			if n := h.tailnetBytes(h.Coordinator) - before; n > payload/3 {
				t.Errorf("the coordinator sent %d bytes to builders that could have %d from each other", n, payload)
			} else {
				t.Logf("the coordinator sent %d bytes", n)
			}

			// Peers don't reach each other any more, and the coordinator reaches all.
			for _, from := range h.Builders {
				for _, to := range h.Builders {
					if from != to {
						addr := h.must(to, "tailscale", "ip", "-4")
						h.must(from, "ip", "route", "replace", "blackhole", addr+"/32", "table", "52")
					}
				}
			}
			before = h.tailnetBytes(h.Coordinator)
			h.sharedBy(h.build("passed-on.nix"), 3)
			if n := h.tailnetBytes(h.Coordinator) - before; n < 2*payload {
				t.Errorf("the coordinator sent %d bytes of the %d that two builders needed", n, 2*payload)
			}
			h.stop()
			h.wantReleased()
		})
	}
}

// sharedBy wants a build of passed-on.nix to have used so many builders.
func (h *hooked) sharedBy(p *fleet.Process, builders int) {
	h.t.Helper()
	hosts := map[string]bool{}
	for line := range strings.Lines(h.text(p)) {
		_, host, _ := strings.Cut(strings.TrimSpace(line), " bytes on ")
		hosts[host] = true
		if !strings.Contains(line, fmt.Sprintf(" of %d bytes ", payload)) {
			h.t.Errorf("a user has %q", line)
		}
	}
	if len(hosts) != builders {
		h.t.Errorf("it was built on %v, want %d builders", hosts, builders)
	}
	if strings.Contains(p.Output(), "\nerror:") {
		h.t.Errorf("a person is shown an error:\n%s", p.Output())
	}
}
