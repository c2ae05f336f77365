package machinesfile_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/machinesfile"
)

func TestParse(t *testing.T) {
	const here = "x86_64-linux"
	plain := func(store, line string) machinesfile.Machine {
		return machinesfile.Machine{Store: store, Line: line, Systems: []string{here}, MaxJobs: 1, Speed: 1}
	}
	for _, test := range []struct {
		name, text string
		want       []machinesfile.Machine
	}{
		{"nothing", "", nil},
		{"blank lines and comments", "\n  \n# ssh://old\n;;\n", nil},
		{"a store alone", "ssh-ng://b1\n", []machinesfile.Machine{plain("ssh-ng://b1", "ssh-ng://b1")}},
		{"a host alone", "root@b1", []machinesfile.Machine{plain("ssh://root@b1", "root@b1")}},
		{"a path, with a query", "/tmp/m1?system-features=foo", []machinesfile.Machine{plain("/tmp/m1?system-features=foo", "/tmp/m1?system-features=foo")}},
		{"the daemon", "daemon", []machinesfile.Machine{plain("daemon", "daemon")}},
		{"local with a query", "local?root=x", []machinesfile.Machine{plain("local?root=x", "local?root=x")}},
		{"all fields", "ssh-ng://u@b1 i686-linux,x86_64-linux /key 4 2.5 kvm,big-parallel benchmark YWJj # mine", []machinesfile.Machine{{
			Store: "ssh-ng://u@b1", Line: "ssh-ng://u@b1 i686-linux,x86_64-linux /key 4 2.5 kvm,big-parallel benchmark YWJj",
			Systems: []string{"i686-linux", "x86_64-linux"}, MaxJobs: 4, Speed: 2.5,
			Features: []string{"big-parallel", "kvm"}, Mandatory: []string{"benchmark"},
		}}},
		{"all fields left out", "ssh://b1 - - - - - - -", []machinesfile.Machine{plain("ssh://b1", "ssh://b1 - - - - - - -")}},
		{"more fields than there are", "ssh://b1 - - - - - - - x", []machinesfile.Machine{plain("ssh://b1", "ssh://b1 - - - - - - - x")}},
		{"as a setting", "ssh://b1; ssh://b2\t-  - 3", []machinesfile.Machine{plain("ssh://b1", "ssh://b1"),
			{Store: "ssh://b2", Line: "ssh://b2\t-  - 3", Systems: []string{here}, MaxJobs: 3, Speed: 1}}},
		{"no jobs at all", "ssh://b1 - - 0", []machinesfile.Machine{{Store: "ssh://b1", Line: "ssh://b1 - - 0", Systems: []string{here}, Speed: 1}}},
		{"speed zero means one", "ssh://b1 - - 1 0", []machinesfile.Machine{plain("ssh://b1", "ssh://b1 - - 1 0")}},
		{"a repeated feature", "ssh://b1 - - 1 1 kvm,,kvm", []machinesfile.Machine{{
			Store: "ssh://b1", Line: "ssh://b1 - - 1 1 kvm,,kvm", Systems: []string{here}, MaxJobs: 1, Speed: 1, Features: []string{"kvm"}}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := machinesfile.Parse(test.text, here)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("machines (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"- x86_64-linux":            "names no store",
		"@/etc/nix/more":            "is not read",
		"ssh://b1 - - many":         `"many" and no number`,
		"ssh://b1 - - -1":           `"-1" and no number`,
		"ssh://b1 - - 99999999999":  "no number",
		"ssh://b1 - - 1 NaN":        `"NaN" and no number`,
		"ssh://b1 - - 1 -2":         `"-2" and no number`,
		"ssh://b1 - - 1 1 - - \x01": "no base64",
		"ssh://b1 - - 1 1 - - YW*j": "no base64",
	} {
		_, err := machinesfile.Parse(text, "x86_64-linux")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// Whatever a file says, what is read of it is what its lines say when they stand alone.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"ssh-ng://b1 x86_64-linux,i686-linux - 4 1.5 kvm benchmark YWJj # comment", "b1; /tmp/x?root=y\n\n@z", "daemon - - 0 0",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		all, err := machinesfile.Parse(text, "x86_64-linux")
		if err != nil {
			return
		}
		for _, m := range all {
			if m.Store == "" || len(m.Systems) == 0 && !strings.Contains(m.Line, ",") || m.MaxJobs < 0 || !(m.Speed > 0) {
				t.Errorf("machine %+v", m)
			}
			again, err := machinesfile.Parse(m.Line, "x86_64-linux")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]machinesfile.Machine{m}, again); diff != "" {
				t.Errorf("line %q alone (-want +got):\n%s", m.Line, diff)
			}
		}
	})
}
