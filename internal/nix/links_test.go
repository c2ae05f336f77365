package nix_test

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
)

// While the tables were recorded, three builds ran on two builders, a nix store info had an
// ssh to the first builder and a person one to the second.
func TestFindLinksInRecordings(t *testing.T) {
	const b1, b2 = "nix-builder-24.04-1", "nix-builder-24.04-2"
	for suite, want := range map[string]map[int]string{
		"trixie": {228: b1, 233: b2, 238: b1},
		"sid":    {401: b1 + " 403", 415: b2 + " 417", 428: b1 + " 430"}, // userspace: with a ProxyCommand
	} {
		out, err := os.ReadFile("testdata/" + suite + "/links-ps.txt")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, nix.FindLinks(string(out), 0)); diff != "" {
			t.Errorf("links in %s's table (-want +got):\n%s", suite, diff)
		}
		if got := nix.FindLinks(string(out), 1001); len(got) > 0 {
			t.Errorf("links of another user's hooks in %s's table: %v", suite, got)
		}
	}
}

func TestFindLinks(t *testing.T) {
	const hook = "10 5 0 /nix/store/0c1-nix-2.34/bin/nix __build-remote 3\n"
	for _, tc := range []struct {
		name, table string
		want        map[int]string
	}{
		{name: "nothing"},
		{name: "lines that are none", table: "PID PPID UID ARGS\n10 x 0 nix\n11 1 0\n"},
		{name: "an ssh of macOS", table: hook + "11 10 0 /usr/bin/ssh root@b1 -x\n", want: map[int]string{11: "b1"}},
		{name: "a hook that has none yet", table: hook + "11 10 0 /nix/store/0c1-nix-2.34/bin/nix __build-remote 3\n"},
		{name: "the table's order does not matter", table: "12 11 0 sh -c proxy\n11 10 0 ssh root@b1\n" + hook, want: map[int]string{11: "b1 12"}},
		{name: "without a user", table: hook + "11 10 0 ssh b1 -x\n", want: map[int]string{11: "b1"}},
		{name: "options first", table: hook + "11 10 0 ssh -x -i /key -oPort=22 -vp 22 -Jproxy root@b1 -l eve\n", want: map[int]string{11: "b1"}},
		{name: "end of options", table: hook + "11 10 0 ssh -x -- root@b1 nix-daemon\n", want: map[int]string{11: "b1"}},
		{name: "no host", table: hook + "11 10 0 ssh -V\n12 10 0 ssh\n13 10 0 ssh root@\n"},
		{name: "what ssh starts is no link", table: hook + "11 10 0 ssh root@b1\n12 11 0 ssh root@jump -W b1:22\n", want: map[int]string{11: "b1 12"}},
		{name: "another program of the hook", table: hook + "11 10 0 ssh-keygen root@b1\n"},
		{name: "in ssh's place", table: hook + "11 10 0 /run/x/nix-builders dial-store 100.64.0.1:8379 . b1 --stdio\n", want: map[int]string{11: "b1"}},
		{name: "in its place, nameless", table: hook + "11 10 0 nix-builders dial-store 100.64.0.1:8379 -\n12 10 0 nix-builders dial b1 22\n"},
		{name: "a hook of our own hook", table: "9 5 0 /opt/nix-builders build-hook /run/s 3\n10 9 0 nix __build-remote 3\n11 10 0 ssh root@b1\n12 9 0 ssh root@b1\n"},
		{name: "who calls himself our hook", table: "9 5 1001 nix-builders build-hook\n10 9 0 nix __build-remote 3\n11 10 0 ssh root@b1\n", want: map[int]string{11: "b1"}},
		{name: "a person's ssh", table: "11 1 0 ssh root@b1\n12 11 0 bash\n"},
		{name: "another command of nix", table: "10 5 0 nix copy __build-remote\n11 10 0 ssh root@b1\n"},
		{name: "a user who calls a process so", table: "10 5 1001 nix __build-remote 3\n11 10 1001 ssh root@b1\n"},
	} {
		want := tc.want
		if want == nil {
			want = map[int]string{}
		}
		if diff := cmp.Diff(want, nix.FindLinks(tc.table, 0)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

func TestLinksOfThisHost(t *testing.T) {
	if _, err := nix.Links(t.Context()); err != nil {
		t.Error(err)
	}
	if err := (nix.Link{Builder: "b1"}).End(); err != nil {
		t.Errorf("end a link that is gone: %v", err)
	}
}
