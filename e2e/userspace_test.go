package e2e_test

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// userspace is the setting of hosts where tailscaled must not touch the network, which
// is how it runs on macOS: no device, no route to the peers, no address to bind.
const userspace = "NIX_BUILDERS_NETWORKING=userspace"

// A person sees no difference between hosts with a network device for the tailnet and
// hosts without, in whichever role: Nix builds on all of them, and stop-nix-builders
// releases them. What is only for the coordinator's own host stays its own.
func TestUserspace(t *testing.T) {
	t.Parallel() // it mostly waits
	lab := startLab(t, testbed.Config{Builders: 2})
	us, tun := testbed.Builder(1), testbed.Builder(2)

	t.Run("builder", func(t *testing.T) {
		r := newRig(t, lab, "ub", 2)
		ub, tb := r.builder(us, userspace), r.builder(tun)
		r.wantExit(r.coordinator(), 0)
		if got := r.must(us, "sh", "-c", "ls /sys/class/net | grep -c tailscale || true"); got != "0" {
			t.Errorf("the userspace builder has %s tailscale devices", got)
		}
		r.buildsOnBoth()
		r.stop()
		r.wantExit(ub, 0)
		r.wantExit(tb, 0)
		r.leave()
	})

	t.Run("coordinator", func(t *testing.T) {
		r := newRig(t, lab, "uc", 2)
		ub, tb := r.builder(us, userspace), r.builder(tun)
		step := r.sudoCoordinator(userspace)
		r.wantExit(step, 0)
		r.buildsOnBoth()
		if config := r.must(testbed.Coordinator, "cat", "/root/.ssh/config"); !strings.Contains(config, "nix-builders dial") {
			t.Errorf("root's ssh does not go through the program:\n%s", config)
		}

		t.Run("own doors", func(t *testing.T) { r.ownDoors(t, step) })
		t.Run("doors of the tailnet", func(t *testing.T) { r.tailnetDoors(t, us, tun) })

		r.stop()
		r.wantExit(ub, 0)
		r.wantExit(tb, 0)
		r.leave()
		if left := r.nodes(); len(left) > 0 {
			t.Errorf("still on the tailnet: %v", left)
		}
	})
}

// buildsOnBoth builds as the job's user, and wants both builders to have had a part.
func (r *rig) buildsOnBoth() {
	r.t.Helper()
	(&directStory{r}).reached("ssh-ng://localhost?remote-program=", 2)
	p := r.build("fan-in.nix", "--argstr", "seconds", "0.3")
	r.wantExit(p, 0)
	for _, host := range r.Builders {
		if !slices.Contains(hostsOf(r.where(p)), host) {
			r.t.Errorf("%s built nothing: %v", host, r.where(p))
		}
	}
}

// sudoCoordinator starts the coordinator as a workflow's step does: an ordinary user
// through sudo, whose group may then control the cluster.
func (r *rig) sudoCoordinator(env ...string) *fleet.Process {
	r.t.Helper()
	var names []string
	for _, b := range r.Builders {
		names = append(names, r.NameOf(b))
	}
	argv := append([]string{"sudo", "--preserve-env", "env", "NIX_BUILDERS_HOSTNAME=nix-coordinator-" + r.Suffix,
		"NIX_BUILDERS_BUILDERS=" + strings.Join(names, " ")}, env...)
	p, err := r.Start(r.t.Context(), testbed.Coordinator, testbed.Runner, append(argv, "nix-builders", "coordinator")...)
	if err != nil {
		r.t.Fatal(err)
	}
	r.started = append(r.started, p)
	return p
}

// ownDoors are a URL on the loopback and a socket.
func (r *rig) ownDoors(t *testing.T, step *fleet.Process) {
	server, err := r.Server(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	contains(t, "the coordinator's step", step.Output(), "NIX_BUILDERS_API="+server.API)
	if !strings.HasPrefix(server.API, "http://[::1]:8378/") {
		t.Errorf("the URL for this host is %s", server.API)
	}
	get := []string{"curl", "-fsS", "--max-time", "10"}
	url := append(get, server.API+"/cluster")
	socket := append(get, "--unix-socket", server.Socket, "http://localhost/v1/cluster")
	for _, argv := range [][]string{url, socket} {
		for _, user := range []string{testbed.Root, testbed.Runner} {
			contains(t, "the cluster", output(t, r.Host(testbed.Coordinator), user, argv...), `"phase":"ready"`)
		}
	}
	if got := r.must(testbed.Coordinator, "stat", "-c", "%A %U %G", server.Socket); got != "srw-rw---- root runner" {
		t.Errorf("the control socket is %s", got)
	}
	stranger := append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}, socket...)
	if code, printed := r.as(testbed.Root, testbed.Coordinator, stranger...); code != 7 {
		t.Errorf("somebody else's process at the control socket: curl ended with %d:\n%s", code, printed)
	}
	// tailscaled did not bring this one, so the tailnet can't tell who it is.
	if code, status := r.status(testbed.Coordinator, "GET", "http://127.0.0.1:8378/v1/cluster"); status != "403" {
		t.Errorf("this host at the tailnet's own door: status %s, curl ended with %d", status, code)
	}
}

// tailnetDoors are the node's addresses. By no way does a peer pass for the host itself.
func (r *rig) tailnetDoors(t *testing.T, us, tun string) {
	var ips []netip.Addr
	nodes, err := r.Lab.Control().Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if n.Hostname == "nix-coordinator-"+r.Suffix {
			ips = n.IPs
		}
	}
	if len(ips) != 2 {
		t.Fatalf("the coordinator has the addresses %v, want one of each family", ips)
	}
	for _, ip := range ips {
		base := "http://" + netip.AddrPortFrom(ip, 8378).String() + "/v1"
		for _, call := range []struct {
			method, path, want string
			header             string
		}{
			{"GET", "/cluster", "200", ""},
			{"POST", "/stop-nix-builders", "403", ""},
			{"POST", "/stop-nix-builders", "403", "Host: [::1]:8378"},
			{"POST", "/stop-nix-builders", "421", "Host: localhost"},
		} {
			args := []string{}
			if call.header != "" {
				args = append(args, "-H", call.header)
			}
			if code, status := r.status(tun, call.method, base+call.path, args...); status != call.want {
				t.Errorf("%s: %s %s%s (%s): status %s, want %s; curl ended with %d", tun, call.method, base, call.path, call.header, status, call.want, code)
			}
			// The host without a device has the program's own way there.
			host := call.header
			if host == "" {
				host = "Host: " + netip.AddrPortFrom(ip, 8378).String()
			}
			request := fmt.Sprintf("%s /v1%s HTTP/1.1\r\n%s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", call.method, call.path, host)
			if got := r.dial(us, ip, request); !strings.HasPrefix(got, "HTTP/1.1 "+call.want+" ") {
				t.Errorf("%s: %s %s%s (%s): %q, want %s", us, call.method, base, call.path, call.header, got, call.want)
			}
		}
	}
	// The network that all hosts share is not the tailnet.
	outside := "http://" + netip.AddrPortFrom(r.Host(testbed.Coordinator).IP(), 8378).String() + "/v1/cluster"
	if code, status := r.status(tun, "GET", outside); code != 7 {
		t.Errorf("over the network outside of the tailnet: status %s, curl ended with %d, want 7, refused", status, code)
	}
	now := r.await("still ready", func(c apiclient.Cluster) bool { return true })
	if now.Phase != "ready" {
		t.Errorf("the cluster is %s", now.Phase)
	}
}

// dial sends a request to the port of the API by the program's own way, and returns the
// whole answer.
func (r *rig) dial(host string, ip netip.Addr, request string) string {
	r.t.Helper()
	stdin, write, err := os.Pipe()
	if err != nil {
		r.t.Fatal(err)
	}
	defer stdin.Close()
	defer write.Close() // not before the answer: the end of the input ends the connection
	if _, err := write.WriteString(request); err != nil {
		r.t.Fatal(err)
	}
	cmd := r.Host(host).Command(within(r.t, patience), "nix-builders", "dial", ip.String(), "8378")
	cmd.Stdin = stdin
	answer, err := testbed.Output(cmd)
	if err != nil {
		r.t.Error(err)
	}
	return answer
}

// status is what curl gets on a host: its exit code and the status of the answer.
func (r *rig) status(host, method, url string, args ...string) (code int, status string) {
	r.t.Helper()
	argv := append([]string{"curl", "-sS", "--max-time", "10", "-o", "/dev/null", "-w", "%{stdout}%{http_code}", "-X", method, url}, args...)
	code, printed := r.as(testbed.Root, host, argv...)
	printed = strings.TrimSpace(printed)
	return code, printed[max(0, len(printed)-3):]
}
