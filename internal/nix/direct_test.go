package nix_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
)

func directMachine() nix.Machine {
	m := machine()
	m.HostKey = "" // nobody shows one
	m.Direct = nix.Direct{Addr: "100.64.0.7:8379", Program: "/run/nix-builders/x+y/nix-builders", Dir: "."}
	return m
}

func TestLineOfADirectMachine(t *testing.T) {
	m := directMachine()
	line, err := m.Line()
	if err != nil {
		t.Fatal(err)
	}
	want := "ssh-ng://localhost?remote-program=/run/nix-builders/x%2By/nix-builders%20dial-store%20100.64.0.7:8379%20.%20nix-builder-a1-ubuntu-24.04-1 x86_64-linux - 4 1 - -"
	if diff := cmp.Diff(want, line); diff != "" {
		t.Errorf("line (-want +got):\n%s", diff)
	}
	if name := nix.LineName(line); name != m.Name {
		t.Errorf("its name is %q, want %q", name, m.Name)
	}
	m.Direct.Addr, m.Direct.Dir = "[fd7a:115c:a1e0::7]:8379", "-"
	if line, err = m.Line(); err != nil || !strings.Contains(line, "%20%5Bfd7a:115c:a1e0::7%5D:8379%20-%20") || nix.LineName(line) != m.Name {
		t.Errorf("with IPv6: %v, %q", err, line)
	}
}

func TestLinesThatNameNobody(t *testing.T) {
	for _, line := range []string{
		"", "%", "ssh-ng://localhost", "ssh-ng://localhost?remote-program=nix-daemon x86_64-linux",
		"ssh-ng://localhost?remote-program=/x%20dial-store%20100.64.0.7:8379%20-",
		"ssh-ng://localhost?remote-program=/x%20dial%20100.64.0.7:8379%20-%20b1",
		"ssh-ng://localhost?remote-program=/x%20dial-store%20100.64.0.7:8379%20-%20-b1",
	} {
		if name := nix.LineName(line); name != "" {
			t.Errorf("%q is about %q", line, name)
		}
	}
}

func TestDirectMachinesThatCanNotBe(t *testing.T) {
	for name, spoil := range map[string]func(*nix.Machine){
		"no port":              func(m *nix.Machine) { m.Direct.Addr = "100.64.0.7" },
		"port 0":               func(m *nix.Machine) { m.Direct.Addr = "100.64.0.7:0" },
		"a name":               func(m *nix.Machine) { m.Direct.Addr = "b1:8379" },
		"a zone":               func(m *nix.Machine) { m.Direct.Addr = "[fe80::1%25eth0]:8379" },
		"address with space":   func(m *nix.Machine) { m.Direct.Addr = "100.64.0.7:8379 x" },
		"no program":           func(m *nix.Machine) { m.Direct.Program = "" },
		"relative program":     func(m *nix.Machine) { m.Direct.Program = "nix-builders" },
		"program with space":   func(m *nix.Machine) { m.Direct.Program = "/a b" },
		"program with query":   func(m *nix.Machine) { m.Direct.Program = "/a&remote-store=/b" },
		"program encoded":      func(m *nix.Machine) { m.Direct.Program = "/a%20b" },
		"no directory":         func(m *nix.Machine) { m.Direct.Dir = "" },
		"relative directory":   func(m *nix.Machine) { m.Direct.Dir = "x" },
		"directory with space": func(m *nix.Machine) { m.Direct.Dir = "/a b" },
		"localhost":            func(m *nix.Machine) { m.Name = "localhost" },
		"too long a name":      func(m *nix.Machine) { m.Name = strings.Repeat("b", 120) },
		"no systems":           func(m *nix.Machine) { m.Systems = nil },
	} {
		m := directMachine()
		spoil(&m)
		if line, err := m.Line(); err == nil {
			t.Errorf("%s: Line gave %q", name, line)
		}
	}
}
