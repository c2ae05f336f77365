package nix_test

import (
	"os"
	"runtime"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
)

const (
	groups = "root:x:0:\nkvm:x:108:nixbld1,nixbld2,nixbld3\nhalf:x:109:nixbld1\nnixbld:x:30000:nixbld1,nixbld2,nixbld3\nbroken\n"
	passwd = "root:x:0:0:root:/root:/bin/sh\nnixbld1:x:30001:30000::/var/empty:/sbin/nologin\n" +
		"nixbld2:x:30002:30000::/var/empty:/sbin/nologin\nnixbld3:x:30003:30000::/var/empty:/sbin/nologin\nrunner:x:1001:1001::/home/runner:/bin/bash\n"
)

func TestCountBuilds(t *testing.T) {
	for _, tc := range []struct {
		name, group string
		table       []nix.Process
		want        int
	}{
		{name: "idle", group: "nixbld", table: []nix.Process{{1, 0, 0, "init", false}, {20, 1, 0, "nix-daemon", true}}},
		{name: "a user is a build", group: "nixbld", want: 2, table: []nix.Process{
			{20, 1, 0, "nix-daemon", true}, {21, 20, 0, "nix-daemon", true},
			{30, 21, 30001, "bash", false}, {31, 30, 30001, "cc1plus", false}, {32, 21, 30003, "builtin:fetchurl", true},
			{40, 1, 1001, "bash", false},
		}},
		{name: "an automatic user is a build", group: "nixbld", want: 2, table: []nix.Process{
			{30, 21, 0x34000000, "bash", false}, {31, 30, 0x34000005, "cc", false}, {32, 21, 0x34010000, "bash", false},
		}},
		{name: "builds as root", want: 2, table: []nix.Process{
			{20, 1, 0, "nix-daemon", true},
			{21, 20, 0, "nix-daemon", true}, // serves a connection
			{22, 5, 0, "nix-daemon", true},  // --stdio, over ssh
			{30, 21, 0, "bash", false}, {31, 30, 0, "cc", false}, {32, 22, 0, "sh", false},
			{33, 21, 0, "nix", true}, // the build hook
			{40, 1, 0, "bash", false},
		}},
	} {
		got, err := nix.CountBuilds(tc.group, groups, passwd, tc.table)
		if err != nil || got != tc.want {
			t.Errorf("%s: %d, %v; want %d", tc.name, got, err, tc.want)
		}
	}
	if _, err := nix.CountBuilds("none", groups, passwd, nil); err == nil {
		t.Error("a group that does not exist was accepted")
	}
}

func TestCountBuildsInPS(t *testing.T) {
	out, err := os.ReadFile("testdata/darwin/ps.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got := nix.CountPS(string(out), false); got != 2 {
		t.Errorf("CountPS = %d, want 2", got)
	}
}

func TestBuildsOfThisHost(t *testing.T) {
	for _, group := range []string{"", "daemon"} {
		c := nix.BuildCounter{Group: group}
		for range 2 { // the second knows the users
			if n, err := c.Count(t.Context()); err != nil || n < 0 {
				t.Errorf("builds of %q: %d, %v", group, n, err)
			}
		}
	}
	c := nix.BuildCounter{Group: "no-such-group"}
	if n, err := c.Count(t.Context()); err == nil && runtime.GOOS == "linux" {
		t.Errorf("builds of a group that does not exist: %d", n)
	}
}

func TestWhoMayUseADevice(t *testing.T) {
	users, err := nix.ParseBuildUsers("nixbld", groups, passwd)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		mode, gid uint32
		want      bool
	}{
		{0o666, 0, true},
		{0o660, 0, false},
		{0o660, 108, true},    // kvm, which all are in
		{0o660, 109, false},   // half, which one is in
		{0o660, 30000, true},  // their own
		{0o640, 30000, false}, // readable only
		{0o664, 0, false},
		{0o600, 108, false},
	} {
		if got := users.MayUse(tc.mode, tc.gid); got != tc.want {
			t.Errorf("mode %o, group %d: %v", tc.mode, tc.gid, got)
		}
	}
	if _, ok := users.Slot(1001); ok {
		t.Error("an ordinary user counts as a build user")
	}
}
