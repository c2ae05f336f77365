package e2e_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// strangersKey is an SSH host key that no builder has.
const strangersKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJzOzJOzRvfPsN1XRlKLOrmOaCCVIKK2a42X1ZHBFWcd"

// Nix talks to the very machine that the tailnet vouches for, or not at all; the user's own
// SSH configuration goes on to hold for the user's own hosts.
func TestSSH(t *testing.T) {
	lab := startLab(t, testbed.Config{Builders: 2})
	c := newCluster(t, lab, "ssh", 2)
	c.Env["NIX_BUILDERS_TRANSPORT"] = "ssh"
	h := lab.Host(testbed.Coordinator)
	name := c.NameOf(testbed.Builder(1))
	own := "Host other\n  User bob\n  HostName 192.0.2.7\n\nHost *\n  StrictHostKeyChecking no\n  User eve\n  Ciphers aes256-ctr\n"
	if err := h.WriteFile(within(t, patience), "/root/.ssh/config", []byte(own), 0o600); err != nil {
		t.Fatal(err)
	}
	c.up()

	t.Run("the pinned key", func(t *testing.T) {
		line := strings.Fields(output(t, h, testbed.Root, "grep", name, "/etc/nix/machines"))
		if len(line) != 8 {
			t.Fatalf("machines line has %d fields: %q", len(line), line)
		}
		open := func(key string) (int, string) {
			return c.run(testbed.Root, "nix", "store", "info", "--store", line[0]+"&base64-ssh-public-host-key="+key)
		}
		if code, printed := open(line[7]); code != 0 {
			t.Errorf("the store with the key that is pinned: code %d:\n%s", code, printed)
		}
		code, printed := open(base64.StdEncoding.EncodeToString([]byte(strangersKey)))
		if code == 0 || !strings.Contains(printed, "Host key verification failed") {
			t.Errorf("the store with another key: code %d:\n%s", code, printed)
		}
	})

	t.Run("known hosts", func(t *testing.T) {
		ssh := func() (int, string) { return c.run(testbed.Root, "ssh", name, "true") }
		if code, printed := ssh(); code != 0 {
			t.Errorf("ssh: code %d:\n%s", code, printed)
		}
		output(t, h, testbed.Root, "sh", "-c", `f=$(echo /run/nix-builders/*/coordinator/known_hosts) && cp "$f" /run/saved && sed -i "s|ssh-.*|$1|" "$f"`, "sh", strangersKey)
		if code, printed := ssh(); code == 0 || !strings.Contains(printed, "Host key verification failed") {
			t.Errorf("ssh to a machine with another key: code %d:\n%s", code, printed)
		}
		output(t, h, testbed.Root, "sh", "-c", `cp /run/saved /run/nix-builders/*/coordinator/known_hosts`)
	})

	t.Run("options", func(t *testing.T) {
		builder := output(t, h, testbed.Root, "ssh", "-G", name)
		contains(t, "ssh -G "+name, "\n"+builder, "\nuser root\n", "\nstricthostkeychecking true\n", "\nhostkeyalias "+strings.ToLower(name)+"\n",
			"\nciphers aes128-gcm@openssh.com", "\ncompression no\n", "\nbatchmode yes\n")
		other := output(t, h, testbed.Root, "ssh", "-G", "other")
		contains(t, "ssh -G other", "\n"+other, "\nuser bob\n", "\nhostname 192.0.2.7\n", "\nstricthostkeychecking false\n", "\nciphers aes256-ctr\n")
	})
	// A node that leaves gives its address back; the next one may get it.
	t.Run("another node at the address", func(t *testing.T) {
		address := func(name string) string {
			return sshOption(output(t, h, testbed.Root, "ssh", "-G", name), "hostname")
		}
		line := strings.Fields(output(t, h, testbed.Root, "grep", name, "/etc/nix/machines"))
		was, is := address(name), address(c.NameOf(testbed.Builder(2)))
		output(t, h, testbed.Root, "sed", "-i", "0,/HostName "+was+"$/s//HostName "+is+"/", "/root/.ssh/config")
		if got := address(name); got != is {
			t.Fatalf("%s leads to %s, want %s", name, got, is)
		}
		for _, argv := range [][]string{
			{"nix", "store", "info", "--store", line[0] + "&base64-ssh-public-host-key=" + line[7]},
			{"ssh", name, "true"},
		} {
			if code, printed := c.run(testbed.Root, argv...); code == 0 || !strings.Contains(printed, "Host key verification failed") {
				t.Errorf("%s to another builder's address: code %d:\n%s", argv[0], code, printed)
			}
		}
	})
	c.stop()
	c.wantReleased()
	c.leave()
}

// sshOption is the value of an option in what ssh -G prints.
func sshOption(printed, option string) string {
	for line := range strings.Lines(printed) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), option+" "); ok {
			return value
		}
	}
	return ""
}
