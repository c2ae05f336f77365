package testbed_test

import (
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

func TestUp(t *testing.T) {
	l := testbed.Start(t, testbed.Config{Builders: 3, Programs: []string{}})
	for _, h := range l.Hosts() {
		out, err := h.OutputAs(t.Context(), testbed.Runner, "sh", "-c", "hostname; id; pwd; nix --version; ls -la /usr/local/bin; env; ip addr; mount; ps aux")
		t.Log(out, err)
		break
	}
}
