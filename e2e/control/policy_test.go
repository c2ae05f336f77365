package control_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
)

func TestDefaultPolicyIsTheFirstVersions(t *testing.T) {
	got, err := control.DefaultPolicy()
	if err != nil {
		t.Fatal(err)
	}
	both := []string{tagBuilder, tagCoordinator}
	want := control.Policy{
		Grants: []control.Grant{{Src: both, Dst: both, IP: []string{"*"}}},
		SSH: []control.SSHRule{{
			Src: []string{tagCoordinator}, Dst: []string{tagBuilder},
			Users: []string{"autogroup:nonroot", "root"}, Action: "accept",
		}},
		TagOwners: map[string][]string{
			tagCoordinator: {"autogroup:admin", tagCoordinator},
			tagBuilder:     {"autogroup:admin", tagBuilder},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestParsePolicy(t *testing.T) {
	const owners = `"tagOwners": {"tag:a": []}`
	for _, tt := range []struct{ name, text, want string }{ // want: part of the error, "" for none
		{"empty", `{}`, ""},
		{"comments and commas", "{\n// why\n\"grants\": [],}", ""},
		{"ports", `{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*", "22", "1-65535", "tcp:443", "udp:5-6", "icmp:*"]}]}`, ""},
		{"a tag with an owner", `{"grants": [{"src": ["tag:a"], "dst": ["*"]}], ` + owners + `}`, ""},
		{"not JSON", `{`, "parse policy"},
		{"a section we would not honour", `{"acls": []}`, `unknown field "acls"`},
		{"no source", `{"grants": [{"dst": ["*"]}]}`, "grants[0]: src and dst"},
		{"a tag without an owner", `{"grants": [{"src": ["tag:b"], "dst": ["*"]}], ` + owners + `}`, "tag:b is not in tagOwners"},
		{"a tag without an owner in ssh", `{"ssh": [{"src": ["tag:b"], "dst": ["*"], "action": "accept"}]}`, "ssh[0]: tag:b"},
		{"ports backwards", `{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["9-1"]}]}`, `ip "9-1"`},
		{"a port too many", `{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["65536"]}]}`, `ip "65536"`},
		{"unknown protocol", `{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["gre:1"]}]}`, `protocol "gre"`},
		{"a browser is needed", `{"ssh": [{"src": ["*"], "dst": ["*"], "action": "check"}]}`, `action "check"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := control.ParsePolicy([]byte(tt.text))
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}
