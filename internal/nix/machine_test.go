package nix_test

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/golden"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
)

const (
	ed25519Key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPIQCZc54poJ8vqawd8TraNryQeJnvH1eLpIDgbiqymM"
	ecdsaKey   = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBGKrAjPQxDLmDSvYtqD31ecoxpssvjfvrkxGyc/Zj1VpRrEbo2vbXXicqJFZKMt/s7HTT/cVZ/i3IF5860mqbJo="
)

func machine() nix.Machine {
	return nix.Machine{
		Name:         "nix-builder-a1-ubuntu-24.04-1",
		StoreProgram: "/nix/var/nix/profiles/default/bin/nix-daemon",
		Systems:      []string{"x86_64-linux"},
		MaxJobs:      4,
		HostKey:      ed25519Key,
	}
}

func TestLinesGolden(t *testing.T) {
	rich := nix.Machine{
		Name: "nix-builder-a1-macos-26-1", User: "builder_1", StoreProgram: "/opt/nix+x/bin/nix-daemon",
		Systems: []string{"aarch64-darwin", "x86_64-darwin"}, MaxJobs: 12, SpeedFactor: 3,
		Features: []string{"apple-virt", "big-parallel"}, Mandatory: []string{"benchmark"}, HostKey: ed25519Key,
	}
	got, err := nix.Lines([]nix.Machine{machine(), rich})
	if err != nil {
		t.Fatal(err)
	}
	golden.Equal(t, "machines", got)
	var names []string
	for line := range strings.Lines(got) {
		names = append(names, nix.LineName(strings.TrimSuffix(line, "\n")))
	}
	if diff := cmp.Diff([]string{"nix-builder-a1-macos-26-1", machine().Name}, names); diff != "" {
		t.Errorf("names of lines (-want +got):\n%s", diff)
	}
	swapped, err := nix.Lines([]nix.Machine{rich, machine()})
	if err != nil || swapped != got {
		t.Errorf("the order of machines changes the lines: %v\n%s", err, swapped)
	}
	if _, err := nix.Lines([]nix.Machine{machine(), machine()}); err == nil {
		t.Error("the same machine twice was accepted")
	}
}

func TestConfGolden(t *testing.T) {
	got, err := nix.Conf("/etc/nix/machines")
	if err != nil {
		t.Fatal(err)
	}
	golden.Equal(t, "nix.conf", got)
	for _, path := range []string{"", "machines", "/a\nb", "/a;b", "/a#b"} {
		if got, err := nix.Conf(path); err == nil {
			t.Errorf("Conf(%q) gave %q", path, got)
		}
	}
}

func TestWhatCouldBreakALineIsRefused(t *testing.T) {
	for name, spoil := range map[string]func(*nix.Machine){
		"no name":            func(m *nix.Machine) { m.Name = "" },
		"name with space":    func(m *nix.Machine) { m.Name = "a b" },
		"name with query":    func(m *nix.Machine) { m.Name = "a?x=y" },
		"name with port":     func(m *nix.Machine) { m.Name = "a:22" },
		"name with user":     func(m *nix.Machine) { m.Name = "root@a" },
		"name as option":     func(m *nix.Machine) { m.Name = "-oProxyCommand=x" },
		"name in upper case": func(m *nix.Machine) { m.Name = "A" },
		"localhost":          func(m *nix.Machine) { m.Name = "localhost" },
		"user as option":     func(m *nix.Machine) { m.User = "-l" },
		"user with host":     func(m *nix.Machine) { m.User = "root@b" },
		"no program":         func(m *nix.Machine) { m.StoreProgram = "" },
		"relative program":   func(m *nix.Machine) { m.StoreProgram = "nix-daemon" },
		"program with space": func(m *nix.Machine) { m.StoreProgram = "/bin/sh -c x" },
		"program with query": func(m *nix.Machine) { m.StoreProgram = "/x&ssh-key=/y" },
		"program encoded":    func(m *nix.Machine) { m.StoreProgram = "/x%20y" },
		"no systems":         func(m *nix.Machine) { m.Systems = nil },
		"comma system":       func(m *nix.Machine) { m.Systems = []string{"x86_64-linux,i686-linux"} },
		"system with space":  func(m *nix.Machine) { m.Systems = []string{"x86_64-linux x"} },
		"repeated system":    func(m *nix.Machine) { m.Systems = []string{"x86_64-linux", "x86_64-linux"} },
		"feature comment":    func(m *nix.Machine) { m.Features = []string{"a#b"} },
		"feature line":       func(m *nix.Machine) { m.Features = []string{"kvm\nssh://evil"} },
		"feature semicolon":  func(m *nix.Machine) { m.Features = []string{"kvm;ssh://evil"} },
		"feature dash":       func(m *nix.Machine) { m.Features = []string{"-"} },
		"empty feature":      func(m *nix.Machine) { m.Features = []string{""} },
		"mandatory space":    func(m *nix.Machine) { m.Mandatory = []string{"a b"} },
		"no jobs":            func(m *nix.Machine) { m.MaxJobs = 0 },
		"negative jobs":      func(m *nix.Machine) { m.MaxJobs = -1 },
		"too many jobs":      func(m *nix.Machine) { m.MaxJobs = 1 << 20 },
		"negative speed":     func(m *nix.Machine) { m.SpeedFactor = -1 },
		"no key":             func(m *nix.Machine) { m.HostKey = "" },
		"key of two lines":   func(m *nix.Machine) { m.HostKey = ed25519Key + "\nssh-ed25519 x" },
		"key with comment":   func(m *nix.Machine) { m.HostKey = ed25519Key + " root@x" },
		"key of other type":  func(m *nix.Machine) { m.HostKey = strings.Replace(ed25519Key, "ed25519", "rsa", 1) },
		"key that is none":   func(m *nix.Machine) { m.HostKey = "ssh-ed25519 AAAA" },
	} {
		m := machine()
		spoil(&m)
		if line, err := m.Line(); err == nil {
			t.Errorf("%s: Line gave %q", name, line)
		}
	}
}

func TestMaxJobs(t *testing.T) {
	const GiB = 1 << 30
	for _, tc := range []struct {
		setting, cores int
		memory         int64
		want           int
	}{
		{0, 4, 16 * GiB, 4},
		{0, 8, 7 * GiB, 3},
		{0, 4, 1 * GiB, 1},
		{0, 0, 0, 1},
		{0, 4, -5, 1},
		{0, 100000, 1 << 60, 4096},
		{20, 4, 1 * GiB, 20},
		{100000, 4, 16 * GiB, 4096},
		{-3, 4, 16 * GiB, 4},
	} {
		if got := nix.MaxJobs(tc.setting, tc.cores, tc.memory); got != tc.want {
			t.Errorf("MaxJobs(%d, %d, %d) = %d, want %d", tc.setting, tc.cores, tc.memory, got, tc.want)
		}
	}
}

func TestHostKeysBestFirst(t *testing.T) {
	got := nix.HostKeys([]string{"", "ssh-rsa", "ssh-rsa AAAA", ecdsaKey + " root@b", "ssh-ed25519 !", ed25519Key + "\n", ed25519Key})
	if diff := cmp.Diff([]string{ed25519Key, ecdsaKey}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// parse reads a line as Nix does, by its manual and not by our code.
func parse(t *testing.T, line string) (m nix.Machine) {
	t.Helper()
	fields := strings.Fields(strings.SplitN(line, "#", 2)[0])
	if len(fields) != 8 || strings.ContainsAny(line, "\n;") {
		t.Fatalf("%q is not one machine of 8 fields", line)
	}
	u, err := url.Parse(fields[0])
	if err != nil || u.Scheme != "ssh-ng" || u.Port() != "" || u.Path != "" || u.Fragment != "" {
		t.Fatalf("%q is no store: %v", fields[0], err)
	}
	// Nix decodes %XX in a query and leaves + alone, so what it reads is what was meant only
	// if there is no + at all.
	query := u.Query()
	if strings.Contains(u.RawQuery, "+") || len(query) != 1 || len(query["remote-program"]) != 1 {
		t.Fatalf("query %q is not one remote-program", u.RawQuery)
	}
	list := func(s string) []string {
		if s == "-" {
			return nil
		}
		return strings.Split(s, ",")
	}
	number := func(s string) int {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	key, err := base64.StdEncoding.DecodeString(fields[7])
	if err != nil || fields[2] != "-" {
		t.Fatalf("%q: identity %q, key %v", line, fields[2], err)
	}
	return nix.Machine{
		Name: u.Hostname(), User: u.User.Username(), StoreProgram: query.Get("remote-program"),
		Systems: list(fields[1]), MaxJobs: number(fields[3]), SpeedFactor: number(fields[4]),
		Features: list(fields[5]), Mandatory: list(fields[6]), HostKey: string(key),
	}
}

// FuzzLine holds that every line that is written is read back as the same machine, and
// that it is one line.
func FuzzLine(f *testing.F) {
	f.Add("a-1", "", "/bin/nix-daemon", "x86_64-linux", 4, 1, "kvm,big-parallel", "", ed25519Key)
	f.Add("a.b_c", "me", "/a+b/_.-", "i686-linux,aarch64-linux", 1, 0, "", "a,b", ecdsaKey)
	f.Add("a\n", "#", "/a b", "-", 0, -1, ",", "-", "ssh-ed25519 AAAA")
	f.Fuzz(func(t *testing.T, name, user, program, systems string, jobs, speed int, features, mandatory, key string) {
		list := func(s string) []string {
			if s == "" {
				return nil
			}
			return strings.Split(s, ",")
		}
		m := nix.Machine{
			Name: name, User: user, StoreProgram: program, Systems: list(systems), MaxJobs: jobs,
			SpeedFactor: speed, Features: list(features), Mandatory: list(mandatory), HostKey: key,
		}
		before := m
		before.Systems = slices.Clone(m.Systems)
		line, err := m.Line()
		if err != nil {
			return
		}
		want := m
		if want.User == "" {
			want.User = "root"
		}
		want.SpeedFactor = max(1, want.SpeedFactor)
		if diff := cmp.Diff(want, parse(t, line)); diff != "" {
			t.Errorf("%q is read as another machine (-want +got):\n%s", line, diff)
		}
		if diff := cmp.Diff(before, m); diff != "" {
			t.Errorf("Line changed the machine:\n%s", diff)
		}
	})
}
