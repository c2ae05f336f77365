package tailnet_test

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/tailnet"
)

// A coordinator without a TUN device: every way in, and whom the tailnet says
// came by it. Nobody of the tailnet may come in by the doors of this host.
func TestListenUserspace(t *testing.T) {
	t.Parallel()
	s := startControl(t)
	opts := options(t, s, "nix-coordinator-a1", coordinatorTag)
	m := join(t, opts)
	coord := m.Client()
	socket := filepath.Join(opts.StateDir, "control.sock")
	l, err := coord.Listen(t.Context(), tailnet.ListenConfig{ControlSocket: socket, GID: os.Getgid()})
	if err != nil {
		t.Fatal(err)
	}
	whoServer(t, coord, l.Tailnet...)
	for _, ln := range l.Own {
		srv := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
		go srv.Serve(ln)
		defer srv.Close()
	}
	self, err := coord.Self(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	base, err := url.Parse(l.Base)
	if err != nil {
		t.Fatal(err)
	}
	port := base.Port()

	_, builder := node(t, s, "one", builderTag)
	builderSelf, err := builder.Self(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the builder sees the coordinator", func() bool {
		_, err := builder.Peer(t.Context(), self.ID)
		return err == nil
	})
	peer := &http.Client{Transport: builder.Transport(0)}
	for _, ip := range self.IPs { // IPv6 must not end at the door on ::1
		for range 20 { // a new connection each: the registration is late
			peer.CloseIdleConnections()
			caller, status := who(t, peer, "http://"+net.JoinHostPort(ip.String(), port))
			if status != http.StatusOK || caller.Self || caller.ID != builderSelf.ID {
				t.Fatalf("the builder over %v: %d %+v", ip, status, caller)
			}
		}
	}
	if _, err := builder.Dial(t.Context(), "tcp", net.JoinHostPort("::1", port)); err == nil {
		t.Error("a peer dialled the coordinator's loopback")
	}

	plain := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if res, err := plain.Get(l.OwnBase); err != nil {
		t.Errorf("this host by its own door: %v", err)
	} else {
		res.Body.Close()
	}
	if caller, status := who(t, plain, "http://127.0.0.1:"+port); status != http.StatusForbidden {
		t.Errorf("this host by the door of the tailnet: %d %+v", status, caller)
	}
	unix := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}}}
	if res, err := unix.Get("http://control/"); err != nil {
		t.Errorf("this host by the control socket: %v", err)
	} else {
		res.Body.Close()
	}
	fi, err := os.Stat(socket)
	if err != nil || fi.Mode().Perm() != 0o660 {
		t.Errorf("control socket: %v, %v", fi.Mode(), err)
	}
	own, err := url.Parse(l.OwnBase)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{base.Hostname(), own.Hostname(), self.Name, self.FQDN} {
		if !slices.Contains(l.Hosts, host) {
			t.Errorf("%s is missing in %q", host, l.Hosts)
		}
	}

	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(socket); err == nil {
		t.Error("the control socket is left")
	}
}
