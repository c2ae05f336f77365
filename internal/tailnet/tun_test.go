package tailnet_test

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/tailnet"
)

// insideTUN marks the copy of the test that has a network of its own.
const insideTUN = "TAILNET_TEST_INSIDE"

// inNamespace gives a command a network with nothing but itself, and an /etc for
// tailscaled to write its resolv.conf into.
const inNamespace = `set -e
ip link set lo up
ip link add up0 type veth peer name up1
ip address add 10.77.0.1/24 dev up0
ip link set up0 up; ip link set up1 up
ip route add default via 10.77.0.2 # without one, tailscaled takes the host for offline
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/upper,workdir=$1/work" /etc
shift
exec "$@"`

// With a TUN device the host has the tailnet's addresses: a peer and the host
// itself come in by the same door, and the tailnet knows which is which.
func TestListenTUN(t *testing.T) {
	t.Parallel()
	if os.Getenv(insideTUN) == "" {
		if _, err := os.Stat("/dev/net/tun"); err != nil || os.Geteuid() != 0 {
			t.Skip("needs root and /dev/net/tun")
		}
		for _, tool := range []string{"ip", "unshare"} {
			if _, err := exec.LookPath(tool); err != nil {
				t.Skip("needs iproute2 and util-linux:", err)
			}
		}
		programs(t)
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "unshare", "--net", "--mount", "sh", "-c", inNamespace, "sh", t.TempDir(),
			self, "-test.run=^TestListenTUN$", "-test.v", "-test.timeout=60s")
		cmd.Env = append(os.Environ(), insideTUN+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("in a network of its own: %v\n%s", err, out)
		}
		return
	}

	s, err := control.Start(control.Config{Addr: netip.MustParseAddr("10.77.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	opts := options(t, s, "nix-coordinator-a1", coordinatorTag)
	opts.Networking = tailnet.TUN
	m := join(t, opts)
	coord := m.Client()
	l, err := coord.Listen(t.Context(), tailnet.ListenConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	whoServer(t, coord, l.Tailnet...)
	self, err := coord.Self(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if self.Userspace || l.OwnBase != l.Base || len(l.Tailnet) != 2 {
		t.Errorf("%+v listens at %+v", self, l)
	}
	base, err := url.Parse(l.Base)
	if err != nil {
		t.Fatal(err)
	}

	for _, transport := range []http.RoundTripper{&http.Transport{DisableKeepAlives: true}, coord.Transport(0)} {
		for _, ip := range self.IPs {
			caller, status := who(t, &http.Client{Transport: transport}, "http://"+net.JoinHostPort(ip.String(), base.Port()))
			if status != http.StatusOK || !caller.Self || caller.ID != self.ID || !slices.Equal(caller.Tags, []string{coordinatorTag}) {
				t.Errorf("this host at %v: %d %+v", ip, status, caller)
			}
		}
	}
	_, builder := node(t, s, "one", builderTag)
	eventually(t, "the builder sees the coordinator", func() bool {
		_, err := builder.Peer(t.Context(), self.ID)
		return err == nil
	})
	if caller, status := who(t, &http.Client{Transport: builder.Transport(0)}, l.Base); status != http.StatusOK || caller.Self || caller.Name != "one" {
		t.Errorf("a peer: %d %+v", status, caller)
	}
	for _, host := range []string{"127.0.0.1", "10.77.0.1"} {
		if conn, err := net.Dial("tcp", net.JoinHostPort(host, base.Port())); err == nil {
			conn.Close()
			t.Errorf("the service is reached at %s, which is not of the tailnet", host)
		}
	}
}
