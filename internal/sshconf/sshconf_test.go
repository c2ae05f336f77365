package sshconf_test

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/golden"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/sshconf"
)

const (
	key1 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPIQCZc54poJ8vqawd8TraNryQeJnvH1eLpIDgbiqymM"
	key2 = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY="
)

func builders() []sshconf.Host {
	return []sshconf.Host{
		{Name: "nix-builder-a1-ubuntu-24.04-2", Addr: netip.MustParseAddr("fd7a:115c:a1e0::2"), Keys: []string{key1}},
		{Name: "nix-builder-a1-ubuntu-24.04-1", Addr: netip.MustParseAddr("100.64.0.1"), Keys: []string{key1, key2}},
	}
}

func options() sshconf.Options {
	return sshconf.Options{KnownHosts: "/var/lib/nix-builders/o%2Fr%2F1%2F1/known_hosts"}
}

func TestGolden(t *testing.T) {
	config, err := sshconf.Config(builders(), options())
	if err != nil {
		t.Fatal(err)
	}
	golden.Equal(t, "config", config)

	opts := options()
	opts.Proxy = []string{"/opt/my tools/nix-builders", "dial", "--socket=/run/it's 100%", "%h", "%p"}
	opts.ConnectTimeout, opts.GiveUp = 2500*time.Millisecond, 15*time.Second
	if config, err = sshconf.Config(builders(), opts); err != nil {
		t.Fatal(err)
	}
	golden.Equal(t, "config-userspace", config)

	known, err := sshconf.KnownHosts(builders())
	if err != nil {
		t.Fatal(err)
	}
	golden.Equal(t, "known_hosts", known)
}

func TestNoHostsGiveNoLines(t *testing.T) {
	if config, err := sshconf.Config(nil, options()); config != "" || err != nil {
		t.Errorf("Config = %q, %v", config, err)
	}
	if known, err := sshconf.KnownHosts(nil); known != "" || err != nil {
		t.Errorf("KnownHosts = %q, %v", known, err)
	}
}

// A user's file that would send every connection astray, were its lines to count.
const userConfig = `
Compression yes
Host *
  User nobody
  HostName 192.0.2.1
  Port 2222
  ProxyJump bastion
  ProxyCommand false
  ControlMaster auto
  ControlPath ~/.ssh/%C
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  PreferredAuthentications publickey
  IdentityAgent /tmp/agent
  RemoteCommand sh
  RequestTTY force
  ForwardAgent yes
  LocalForward 8080 localhost:80
  Ciphers aes256-ctr
  ServerAliveInterval 0
  ConnectTimeout 600
`

// resolve gives the options that the real ssh would use for name, by option.
func resolve(t *testing.T, config, name string) map[string]string {
	t.Helper()
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		t.Skip("needs OpenSSH's client: ", err)
	}
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), ssh, "-G", "-F", path, name)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("ssh -G: %v\n%s", err, &stderr)
	}
	values := map[string]string{}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		values[key] = value
	}
	return values
}

func TestRealSSHTakesOurOptionsOverTheUsers(t *testing.T) {
	config, err := sshconf.Config(builders(), options())
	if err != nil {
		t.Fatal(err)
	}
	const name = "nix-builder-a1-ubuntu-24.04-1"
	got := resolve(t, config+userConfig, name)
	for key, want := range map[string]string{
		"hostname": "100.64.0.1", "hostkeyalias": name, "user": "root", "port": "22",
		"stricthostkeychecking": "true", "batchmode": "yes", "compression": "no",
		"controlmaster": "false", "preferredauthentications": "none", "identityagent": "none",
		"connecttimeout": "10", "serveraliveinterval": "10", "serveralivecountmax": "3",
		"userknownhostsfile":   "/var/lib/nix-builders/o%2Fr%2F1%2F1/known_hosts",
		"globalknownhostsfile": "/dev/null", "forwardagent": "no", "clearallforwardings": "yes",
		"requesttty": "false",
	} {
		if got[key] != want {
			t.Errorf("%s is %q, want %q", key, got[key], want)
		}
	}
	for _, key := range []string{"proxyjump", "proxycommand", "controlpath", "remotecommand"} {
		if got[key] != "" && got[key] != "none" {
			t.Errorf("%s is %q, want none", key, got[key])
		}
	}
	if !strings.HasPrefix(got["ciphers"], "aes128-gcm@openssh.com,") || !strings.Contains(got["ciphers"], "chacha20") {
		t.Errorf("ciphers are %q, want aes128-gcm first and others after it", got["ciphers"])
	}
}

func TestRealSSHTakesTheUsersOptionsForOtherHosts(t *testing.T) {
	config, err := sshconf.Config(builders(), options())
	if err != nil {
		t.Fatal(err)
	}
	// The last is a name that only begins like a builder's.
	for _, name := range []string{"example.org", "nix-builder-a1-ubuntu-24.04-11"} {
		if diff := cmp.Diff(resolve(t, userConfig, name), resolve(t, config+userConfig, name)); diff != "" {
			t.Errorf("our block changes %s (-without +with):\n%s", name, diff)
		}
	}
}

func TestRealSSHRunsTheProxy(t *testing.T) {
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		t.Skip("needs OpenSSH's client: ", err)
	}
	dir := t.TempDir()
	proxy := filepath.Join(dir, "it's 100% a proxy")
	said := filepath.Join(dir, "said")
	if err := os.WriteFile(proxy, []byte("#!/bin/sh\nprintf '%s|' \"$@\" > '"+said+"'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	opts := options()
	opts.Proxy = []string{proxy, "dial", "a b%c$HOME", "%h", "%p"}
	config, err := sshconf.Config(builders(), opts)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "config")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), ssh, "-F", path, builders()[1].Name, "true")
	cmd.WaitDelay = time.Second
	out, _ := cmd.CombinedOutput() // it fails: what the proxy says is no SSH
	got, err := os.ReadFile(said)
	if err != nil {
		t.Fatalf("the proxy was not run: %v\n%s", err, out)
	}
	if want := "dial|a b%c$HOME|100.64.0.1|22|"; string(got) != want {
		t.Errorf("the proxy got %q, want %q", got, want)
	}
}

func TestWhatCouldBreakOutIsRefused(t *testing.T) {
	addr := netip.MustParseAddr("100.64.0.1")
	for name, h := range map[string]sshconf.Host{
		"no name":        {Addr: addr},
		"pattern":        {Name: "a*", Addr: addr},
		"negation":       {Name: "!a", Addr: addr},
		"two names":      {Name: "a b", Addr: addr},
		"line":           {Name: "a\nHost *", Addr: addr},
		"option":         {Name: "-oProxyCommand=x", Addr: addr},
		"upper case":     {Name: "A", Addr: addr},
		"no address":     {Name: "a"},
		"unspecified":    {Name: "a", Addr: netip.IPv4Unspecified()},
		"zone":           {Name: "a", Addr: netip.MustParseAddr("fe80::1%e\"th0")},
		"key line":       {Name: "a", Addr: addr, Keys: []string{key1 + "\n* " + key1}},
		"key marker":     {Name: "a", Addr: addr, Keys: []string{"@cert-authority " + key1}},
		"key no base64":  {Name: "a", Addr: addr, Keys: []string{"ssh-ed25519 AAA!"}},
		"key no data":    {Name: "a", Addr: addr, Keys: []string{"ssh-ed25519"}},
		"key plus words": {Name: "a", Addr: addr, Keys: []string{key1 + " comment"}},
	} {
		if config, err := sshconf.Config([]sshconf.Host{h}, options()); err == nil {
			t.Errorf("%s: Config gave\n%s", name, config)
		}
		if known, err := sshconf.KnownHosts([]sshconf.Host{h}); err == nil {
			t.Errorf("%s: KnownHosts gave\n%s", name, known)
		}
	}
	if _, err := sshconf.Config(append(builders(), builders()...), options()); err == nil {
		t.Error("the same host twice was accepted")
	}
	for name, o := range map[string]sshconf.Options{
		"no known hosts":       {},
		"relative known hosts": {KnownHosts: "known_hosts"},
		"known hosts line":     {KnownHosts: "/a\n/b"},
		"known hosts quote":    {KnownHosts: `/a"b`},
		"relative proxy":       {KnownHosts: "/a", Proxy: []string{"nix-builders"}},
		"proxy line":           {KnownHosts: "/a", Proxy: []string{"/x", "a\nHost *"}},
		"user":                 {KnownHosts: "/a", User: "root\nHost *"},
	} {
		if config, err := sshconf.Config(builders(), o); err == nil {
			t.Errorf("%s: Config gave\n%s", name, config)
		}
	}
}

// Who is gone is not looked for: the real ssh fails at once, and knows the others as ever.
func TestGoneHostsFailAtOnce(t *testing.T) {
	opts := options()
	opts.Gone = []string{"nix-builder-a1-gone-2", "nix-builder-a1-gone-1"}
	with, err := sshconf.Config(builders(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if want := "Host nix-builder-a1-gone-1 nix-builder-a1-gone-2\n  ProxyCommand false\nMatch all\n"; !strings.HasSuffix(with, want) {
		t.Errorf("want %q at the end of:\n%s", want, with)
	}
	if got := resolve(t, with, builders()[0].Name)["proxycommand"]; got == "false" {
		t.Error("who is there is gone too")
	}
	alone, err := sshconf.Config(nil, opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, config := range []string{with, alone} {
		if got := resolve(t, config, "nix-builder-a1-gone-2")["proxycommand"]; got != "false" {
			t.Errorf("ssh goes by %q to who is gone, with:\n%s", got, config)
		}
	}
	opts.Gone = []string{"a b"}
	if _, err := sshconf.Config(builders(), opts); err == nil {
		t.Error("a name with a space is taken")
	}
}
