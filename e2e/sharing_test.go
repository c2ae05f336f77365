package e2e_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/image"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

const shareEnv = "NIX_BUILDERS_SHARE_PATHS=true"

// sent is how many bytes a host has sent to the tailnet.
func (r *rig) sent(host string) int64 {
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
			const megabyte = 1 << 20

			before := h.rig.sent(h.Coordinator)
			h.sharedBy(h.build("shared.nix"), 3)
			if n := h.rig.sent(h.Coordinator) - before; n > 15*megabyte {
				t.Errorf("the coordinator sent %d MB to three builders that could have 40 MB from each other", n/megabyte)
			} else {
				t.Logf("the coordinator sent %.1f MB", float64(n)/megabyte)
			}

			// Peers don't reach each other any more, and the coordinator reaches all.
			for _, from := range h.Builders {
				for _, to := range h.Builders {
					if from != to {
						addr := h.must(to, "tailscale", "ip", "-4")
						h.must(from, "ip", "route", "add", "blackhole", addr+"/32", "table", "52")
					}
				}
			}
			before = h.rig.sent(h.Coordinator)
			h.sharedBy(h.build("shared.nix"), 3)
			if n := h.rig.sent(h.Coordinator) - before; n < 75*megabyte {
				t.Errorf("the coordinator sent %d MB, though nobody else could", n/megabyte)
			}
			h.stop()
			h.wantReleased()
		})
	}
}

// sharedBy wants a build of shared.nix to have used so many builders.
func (h *hooked) sharedBy(p *fleet.Process, builders int) {
	h.t.Helper()
	hosts := map[string]bool{}
	for line := range strings.Lines(h.text(p)) {
		_, host, _ := strings.Cut(strings.TrimSpace(line), " bytes on ")
		hosts[host] = true
		if !strings.Contains(line, " of 41943040 bytes ") {
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
