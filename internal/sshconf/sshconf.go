// Package sshconf writes what OpenSSH's client must know of the builders.
//
// Nix runs ssh as root and gives it a builder's name and little else, so the rest stands
// in root's ssh_config: where the name leads on the tailnet, and how to go there. In that
// format the first value counts, so the block stands at the top of the file and sets all
// that a user's own lines could get wrong (a jump host, a shared connection, a command);
// it ends with "Match all" so that lines after it hold for every host, as before.
//
// There are no credentials: Tailscale SSH authenticates the node, for which the client
// asks with the method "none". Trust in the other direction is in the host keys that the
// tailnet publishes for each node. Nix pins one in its machines file and passes its own
// known_hosts file; [KnownHosts] is for everyone else's ssh. Both name the builder, which
// HostKeyAlias makes ssh look up instead of the address.
//
// Connections are not shared (ControlMaster no): a server takes 10 sessions on one
// connection, and a build over that number fails instead of waiting.
package sshconf

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Host is a builder as ssh sees it.
type Host struct {
	// Name is how it is called in ssh's argument, in lower case.
	Name string
	// Addr is where it is on the tailnet.
	Addr netip.Addr
	// Keys are its host keys, "TYPE BASE64", as the tailnet publishes them.
	Keys []string
}

// Options are the same for all builders.
type Options struct {
	// KnownHosts is the absolute path of the file that has what [KnownHosts] gives.
	KnownHosts string
	// Proxy is a program and its arguments that stands in for the connection, where the
	// host has no route to the tailnet. The arguments %h and %p become address and port.
	Proxy []string
	// User is who logs in. If empty, root.
	User string
	// ConnectTimeout bounds the connecting, in whole seconds. If zero, 10 s.
	ConnectTimeout time.Duration
	// GiveUp is the silence of a server after which a connection has ended, at the latest;
	// about half of it is put up with. At least 4 s. If zero, 45 s, so that a network that
	// fails for 20 s is survived.
	GiveUp time.Duration
	// Gone are names of builders that are there no more, in lower case. A connection to
	// them fails at once: without a word in the configuration their names would be asked
	// of the network, which may take long to say that it does not know them.
	Gone []string
}

const aliveCount = 3 // questions without an answer that are put up with

// aliveInterval is the silence after which the server is asked whether it is there.
func (o Options) aliveInterval() time.Duration {
	giveUp := o.GiveUp
	if giveUp <= 0 {
		giveUp = 45 * time.Second
	}
	// A ninth is left for what the questions themselves take.
	return max((giveUp * 8 / 9 / (aliveCount + 1)).Truncate(time.Second), time.Second)
}

var (
	nameRule = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$`)
	userRule = regexp.MustCompile(`^[a-z_][a-z0-9_-]*$`)
	typeRule = regexp.MustCompile(`^[a-z0-9][a-z0-9@.-]*$`)
)

func (h Host) validate() error {
	if len(h.Name) > 253 || !nameRule.MatchString(h.Name) {
		return fmt.Errorf("host %q is no host name in lower case", h.Name)
	}
	if !h.Addr.IsValid() || h.Addr.IsUnspecified() || h.Addr.IsMulticast() || h.Addr.Zone() != "" {
		return fmt.Errorf("host %s: %q is no address of a host", h.Name, h.Addr)
	}
	for _, key := range h.Keys {
		kind, data, _ := strings.Cut(key, " ")
		if _, err := base64.StdEncoding.DecodeString(data); err != nil || data == "" ||
			!typeRule.MatchString(kind) || strings.ContainsAny(key, "\r\n") {
			return fmt.Errorf("host %s: %q is no host key", h.Name, key)
		}
	}
	return nil
}

// sorted checks hosts and orders them by name, so that the same hosts always give the
// same text.
func sorted(hosts []Host) ([]Host, error) {
	hosts = slices.SortedFunc(slices.Values(hosts), func(a, b Host) int { return strings.Compare(a.Name, b.Name) })
	for i, h := range hosts {
		if err := h.validate(); err != nil {
			return nil, err
		}
		if i > 0 && hosts[i-1].Name == h.Name {
			return nil, fmt.Errorf("host %s is there twice", h.Name)
		}
	}
	return hosts, nil
}

// Config gives the lines of ssh_config for hosts; none for no hosts.
func Config(hosts []Host, opts Options) (string, error) {
	hosts, err := sorted(hosts)
	if err != nil || len(hosts)+len(opts.Gone) == 0 {
		return "", err
	}
	gone := slices.Sorted(slices.Values(opts.Gone))
	for _, name := range gone {
		if len(name) > 253 || !nameRule.MatchString(name) {
			return "", fmt.Errorf("host %q is no host name in lower case", name)
		}
	}
	common, err := opts.lines()
	if err != nil {
		return "", err
	}
	var s strings.Builder
	names := make([]string, 0, len(hosts))
	for _, h := range hosts {
		fmt.Fprintf(&s, "Host %s\n  HostName %s\n  HostKeyAlias %s\n", h.Name, h.Addr, h.Name)
		names = append(names, h.Name)
	}
	if len(hosts) > 0 {
		fmt.Fprintf(&s, "Host %s\n", strings.Join(names, " "))
		for _, line := range common {
			s.WriteString("  " + line + "\n")
		}
	}
	if len(gone) > 0 {
		fmt.Fprintf(&s, "Host %s\n  ProxyCommand false\n", strings.Join(gone, " "))
	}
	s.WriteString("Match all\n")
	return s.String(), nil
}

func (o Options) lines() ([]string, error) {
	user := o.User
	if user == "" {
		user = "root"
	}
	if !userRule.MatchString(user) {
		return nil, fmt.Errorf("%q is no user name", user)
	}
	known, err := quote(o.KnownHosts)
	if err != nil {
		return nil, err
	}
	proxy, err := command(o.Proxy)
	if err != nil {
		return nil, err
	}
	return []string{
		"User " + user,
		"Port 22",
		"PreferredAuthentications none",
		"IdentityAgent none",
		"BatchMode yes",
		"StrictHostKeyChecking yes",
		"UserKnownHostsFile " + known,
		"GlobalKnownHostsFile /dev/null",
		"UpdateHostKeys no",
		"CheckHostIP no",
		"CanonicalizeHostname no",
		// The first of the two counts: up to OpenSSH 9.2 "ProxyJump none" would too.
		"ProxyCommand " + proxy,
		"ProxyJump none",
		"ControlMaster no",
		"ControlPath none",
		"ForwardAgent no",
		"ForwardX11 no",
		"ClearAllForwardings yes",
		"RemoteCommand none",
		"RequestTTY no",
		"Ciphers ^aes128-gcm@openssh.com",
		"Compression no",
		fmt.Sprintf("ConnectTimeout %d", seconds(o.ConnectTimeout)),
		fmt.Sprintf("ServerAliveInterval %d", seconds(o.aliveInterval())),
		fmt.Sprintf("ServerAliveCountMax %d", aliveCount),
	}, nil
}

// seconds rounds up, as 0 would mean without bounds.
func seconds(d time.Duration) int {
	if d <= 0 {
		d = 10 * time.Second
	}
	return int((d + time.Second - 1) / time.Second)
}

// quote makes a path one argument of ssh_config, in which % and ~ and $ mean something.
func quote(path string) (string, error) {
	if !filepath.IsAbs(path) || strings.ContainsAny(path, "\"\\\r\n$") {
		return "", fmt.Errorf("known hosts file %q can't be named in ssh_config: it must be absolute, without quotes, \\ and $", path)
	}
	return `"` + strings.ReplaceAll(path, "%", "%%") + `"`, nil
}

// command makes a program and its arguments a ProxyCommand: ssh replaces % tokens in it
// and gives it to the user's shell.
func command(argv []string) (string, error) {
	if len(argv) == 0 {
		return "none", nil
	}
	if !filepath.IsAbs(argv[0]) {
		return "", fmt.Errorf("proxy command %q is no absolute path", argv[0])
	}
	words := make([]string, 0, len(argv))
	for _, word := range argv {
		switch {
		case strings.ContainsAny(word, "\r\n\x00"):
			return "", errors.New("the proxy command has a line break")
		case word == "%h" || word == "%p":
			words = append(words, word)
		case plainWord.MatchString(word):
			words = append(words, word)
		default:
			word = strings.ReplaceAll(word, "%", "%%")
			words = append(words, "'"+strings.ReplaceAll(word, "'", `'\''`)+"'")
		}
	}
	return strings.Join(words, " "), nil
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9/._=:@+,-]+$`)

// KnownHosts gives a known_hosts file with every key of hosts.
func KnownHosts(hosts []Host) (string, error) {
	hosts, err := sorted(hosts)
	if err != nil {
		return "", err
	}
	var s strings.Builder
	for _, h := range hosts {
		for _, key := range h.Keys {
			s.WriteString(h.Name + " " + key + "\n")
		}
	}
	return s.String(), nil
}
