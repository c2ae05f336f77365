package testbed_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// A fresh host is without Nix and without the lab's programs, until somebody installs Nix.
func TestFreshHost(t *testing.T) {
	l := testbed.Start(t, bare(0))
	h, err := l.Boot(bounded(t), testbed.HostSpec{Name: "fresh", Fresh: true, Files: map[string]string{"etc/motd": "hello\n"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := output(t, h, testbed.Root, "cat", "/etc/motd"); got != "hello" {
		t.Errorf("its own file holds %q", got)
	}
	const there = "command -v nix nix-daemon tailscale; ls -d /etc/nix /nix/*; sudo -n systemctl is-active nix-daemon || true"
	if got := output(t, h, testbed.Runner, "sh", "-c", there); got != "inactive" {
		t.Errorf("it has, before anybody installed Nix: %q", got)
	}
	if all, err := h.Processes(); err != nil || len(all) > 0 {
		t.Errorf("processes: %v, %v", all, err)
	}
	output(t, h, testbed.Root, "sh", "-euc", `
		mkdir -p /etc/nix "$1"
		echo "experimental-features = nix-command" >/etc/nix/nix.conf
		ln -s "$0"/nix* "$1"
		systemctl start nix-daemon
		systemctl is-active nix-daemon`, testbed.NixBin, testbed.NixProfile)
	const nix = testbed.NixProfile + "/nix"
	output(t, h, testbed.Runner, nix, "store", "info", "--store", "daemon")
	output(t, h, testbed.Root, "systemctl", "restart", "nix-daemon")
	if _, err := os.Stat(filepath.Join(h.Disk(), "etc/nix/nix.conf")); err != nil {
		t.Errorf("its disk does not show what was written: %v", err)
	}
}

// What is thrown away leaves its name and its place to the next, also when many come at once.
func TestRemove(t *testing.T) {
	l := testbed.Start(t, bare(0))
	h, err := l.Boot(bounded(t), testbed.HostSpec{Name: "one", Fresh: true})
	if err != nil {
		t.Fatal(err)
	}
	output(t, h, testbed.Root, "touch", "/mark")
	address, disk := h.IP(), h.Disk()
	if err := h.Remove(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(disk); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its disk is still there: %v", err)
	}
	var wg sync.WaitGroup
	for _, name := range []string{"one", "two", "three"} {
		wg.Go(func() {
			if _, err := l.Boot(bounded(t), testbed.HostSpec{Name: name, Fresh: true}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	places := map[string]string{}
	for _, h := range l.Hosts() {
		if other, taken := places[h.IP().String()]; taken {
			t.Errorf("%s and %s are both at %s", other, h.Name(), h.IP())
		}
		places[h.IP().String()] = h.Name()
	}
	if _, taken := places[address.String()]; !taken {
		t.Errorf("nobody is at %s: %v", address, places)
	}
	output(t, l.Host("one"), testbed.Root, "test", "!", "-e", "/mark")
}

// All hosts, and this machine, see one directory under one name.
func TestShared(t *testing.T) {
	cfg := bare(1)
	cfg.Shared = true
	l := testbed.Start(t, cfg)
	file := filepath.Join(l.Shared(), "file")
	output(t, l.Host(testbed.Builder(1)), testbed.Root, "sh", "-c", "echo hello >"+file)
	if got := output(t, l.Host(testbed.Coordinator), testbed.Runner, "cat", file); got != "hello" {
		t.Errorf("another host reads %q", got)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "hello\n" {
		t.Errorf("this machine reads %q, %v", got, err)
	}
}
