package plan_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/plan"
)

func TestOutputs(t *testing.T) {
	p, err := plan.Parse([]byte(`{"ubuntu-24.04": 2, "macos-26": 1, "macos-15": 0}`), "a1b2c3")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := p.WriteOutputs(&out, true); err != nil {
		t.Fatal(err)
	}
	const (
		matrix = `[{"os":"ubuntu-24.04","id":"ubuntu-24.04-1","name":"nix-builder-a1b2c3-ubuntu-24.04-1"},` +
			`{"os":"ubuntu-24.04","id":"ubuntu-24.04-2","name":"nix-builder-a1b2c3-ubuntu-24.04-2"},` +
			`{"os":"macos-26","id":"macos-26-1","name":"nix-builder-a1b2c3-macos-26-1"}]`
		hosts = "nix-builder-a1b2c3-ubuntu-24.04-1 nix-builder-a1b2c3-ubuntu-24.04-2 nix-builder-a1b2c3-macos-26-1"
	)
	want := "matrix=" + matrix + "\nbuilders=" + hosts + "\nsuffix=a1b2c3\n" +
		"builder_matrix=" + matrix + "\nbuilders_list=" + hosts + "\nrun_suffix=a1b2c3\ncount=3\nneeded=true\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("outputs (-want +got):\n%s", diff)
	}
}

func TestList(t *testing.T) {
	p, err := plan.Parse([]byte(`[
		"ubuntu-24.04",
		{"runs-on": "ubuntu-24.04", "count": 2, "max_jobs": 1},
		{"runs-on": ["self-hosted", "linux", "big"], "speed_factor": 4},
		{"runs-on": ["My runner", "ubuntu-24.04"], "name": "farm"},
		{"runs-on": "macos-15", "count": 0},
		"ubuntu-24.04"
	]`), "a1")
	if err != nil {
		t.Fatal(err)
	}
	builder := func(id string, os ...string) plan.Builder {
		return plan.Builder{OS: os, ID: id, Name: "nix-builder-a1-" + id}
	}
	want := []plan.Builder{
		builder("ubuntu-24.04-1", "ubuntu-24.04"),
		builder("ubuntu-24.04-2", "ubuntu-24.04"),
		builder("ubuntu-24.04-3", "ubuntu-24.04"),
		builder("self-hosted-linux-big-1", "self-hosted", "linux", "big"),
		builder("farm-1", "My runner", "ubuntu-24.04"),
		builder("ubuntu-24.04-4", "ubuntu-24.04"),
	}
	want[1].MaxJobs, want[2].MaxJobs, want[3].SpeedFactor = 1, 1, 4
	if diff := cmp.Diff(want, p.Builders); diff != "" {
		t.Errorf("builders (-want +got):\n%s", diff)
	}
}

// runs-on takes a string or an array, and so does an entry that asks for nothing but one
// label: what the seed's workflow made of counts, matrix.builder.os, stays a string.
func TestMatrixMembers(t *testing.T) {
	p, err := plan.Parse([]byte(`[{"runs-on": ["a", "b"], "name": "n", "max_jobs": 8, "speed_factor": 2}, {"runs-on": ["a"]}]`), "a1")
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(p.Builders)
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"os":["a","b"],"id":"n-1","name":"nix-builder-a1-n-1","max_jobs":8,"speed_factor":2},` +
		`{"os":"a","id":"a-1","name":"nix-builder-a1-a-1"}]`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("matrix (-want +got):\n%s", diff)
	}
}

func TestRefused(t *testing.T) {
	many := make([]string, 20)
	for i := range many {
		many[i] = fmt.Sprintf(`"os-%d": 20`, i)
	}
	for _, c := range []struct{ name, counts, suffix, want string }{
		{"empty", "", "a1", "no builders: want a JSON object"},
		{"blank", " \n", "a1", "no builders: want a JSON object"},
		{"not JSON", "{ubuntu: 1}", "a1", "not JSON"},
		{"cut off", `{"u": 1`, "a1", "not JSON"},
		{"string", `"ubuntu"`, "a1", `want a JSON object such as`},
		{"something after", `{"u": 1} {}`, "a1", "follows"},
		{"repeated", `{"u": 1, "u": 2}`, "a1", "u"},
		{"negative", `{"u": 1, "macos-26": -1}`, "a1", `entry "macos-26": -1`},
		{"fraction", `{"u": 1.5}`, "a1", `entry "u": 1.5`},
		{"exponent", `{"u": 1e2}`, "a1", `entry "u": 1e2`},
		{"text", `{"u": "2"}`, "a1", `entry "u": "2"`},
		{"null", `{"u": null}`, "a1", `entry "u": null`},
		{"object", `{"u": {"a": 1}}`, "a1", `entry "u"`},
		{"huge", `{"u": 99999999999999999999}`, "a1", `entry "u"`},
		{"257", `{"u": 257}`, "a1", "at most 256"},
		{"over 256 in all", "{" + strings.Join(many, ",") + "}", "a1", `entry "os-12": 260`},
		{"none", `{"u": 0}`, "a1", "no builders"},
		{"nothing", `{}`, "a1", "no builders"},
		{"label with a space", `{"u x": 1}`, "a1", `entry "u x"`},
		{"label with a shell character", `{"$(id)": 1}`, "a1", `entry "$(id)"`},
		{"empty label", `{"": 1}`, "a1", `entry ""`},
		{"long label", `{"` + strings.Repeat("x", 60) + `": 1}`, "a1", "at most 63"},
		{"names that meet on the tailnet", `{"u.1": 1, "u-1": 1}`, "a1", `entry "u-1"`},
		{"empty list", `[]`, "a1", "no builders"},
		{"list cut off", `["u"`, "a1", "not JSON"},
		{"list with a comma too many", `["u",]`, "a1", "not JSON"},
		{"number in a list", `["u", 2]`, "a1", "entry 2: want a runner label or an object"},
		{"array in a list", `[["u"]]`, "a1", "entry 1: want a runner label or an object"},
		{"no runs-on", `["u", {"count": 2}]`, "a1", "entry 2: runs-on is missing"},
		{"runs-on of a number", `[{"runs-on": 1}]`, "a1", "entry 1: runs-on: want a runner label"},
		{"runs-on of a group", `[{"runs-on": {"group": "g"}}]`, "a1", "entry 1: runs-on: want a runner label"},
		{"runs-on of numbers", `[{"runs-on": ["u", 1]}]`, "a1", "entry 1: runs-on: want a runner label"},
		{"runs-on of nothing", `[{"runs-on": []}]`, "a1", "entry 1: runs-on: an empty array"},
		{"runs-on with null", `[{"runs-on": ["u", null]}]`, "a1", `entry 1: runs-on: "" is not a runner label`},
		{"runs-on with a line end", `[{"runs-on": "u\nv", "name": "n"}]`, "a1", "entry 1: runs-on:"},
		{"label that can't be a name", `["my runner"]`, "a1", "entry 1: \"my runner\" can't be part of a host name (letters, digits, '.', '_', '-'): give the entry a name"},
		{"name that can't be one", `[{"runs-on": "u", "name": "a b"}]`, "a1", "entry 1: name: \"a b\" can't be part of a host name"},
		{"name of a number", `[{"runs-on": "u", "name": 1}]`, "a1", "entry 1: name: 1 is not a string"},
		{"empty name", `[{"runs-on": "u", "name": ""}]`, "a1", "entry 1: name:"},
		{"count of text", `[{"runs-on": "u", "count": "2"}]`, "a1", `entry 1: count: "2" is not a whole number`},
		{"count in a list over 256", `[{"runs-on": "u", "count": 200}, {"runs-on": "v", "count": 57}]`, "a1", "entry 2: 257 builders"},
		{"max_jobs of 0", `[{"runs-on": "u", "max_jobs": 0}]`, "a1", "entry 1: max_jobs: 0 is not a whole number from 1 to 4096"},
		{"speed_factor of a fraction", `[{"runs-on": "u", "speed_factor": 1.5}]`, "a1", "entry 1: speed_factor: 1.5"},
		{"unknown member", `[{"runs-on": "u", "maxjobs": 1}]`, "a1", "entry 1: maxjobs: there is no such member"},
		{"repeated member", `[{"runs-on": "u", "runs-on": "v"}]`, "a1", "entry 1"},
		{"names that meet in a list", `["u.1", "u-1"]`, "a1", "is the same as one of entry 1 once"},
		{"suffix", `{"u": 1}`, "A B", "suffix"},
		{"no suffix", `{"u": 1}`, "", "suffix"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := plan.Parse([]byte(c.counts), c.suffix)
			if err == nil {
				t.Fatalf("got %v, want an error with %q", p, c.want)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %q, want it to have %q", err, c.want)
			}
		})
	}
}

// Whatever is planned can be run: a bounded matrix that reads back as JSON, one host
// name an entry, and lines that can't smuggle a second output in.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"ubuntu-24.04": 2, "macos-26": 1}`), "a1")
	f.Add([]byte(`{"a\nb": 1}`), "a1")
	f.Add([]byte(`["a", {"runs-on": ["a", "b c"], "count": 2, "name": "n", "max_jobs": 1, "speed_factor": 2}]`), "a1")
	f.Add([]byte(`{"a": 1, "a": 2}`), "a1")
	f.Fuzz(func(t *testing.T, counts []byte, suffix string) {
		p, err := plan.Parse(counts, suffix)
		if err != nil {
			if len(err.Error()) > 1000 {
				t.Errorf("error of %d bytes", len(err.Error()))
			}
			return
		}
		if n := len(p.Builders); n == 0 || n > plan.MaxBuilders || n != len(p.Hosts()) {
			t.Fatalf("%d builders, %d hosts", n, len(p.Hosts()))
		}
		var out bytes.Buffer
		if err := p.WriteOutputs(&out, false); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if len(lines) != 8 {
			t.Fatalf("%d lines: %q", len(lines), out.String())
		}
		var matrix []plan.Builder
		if err := json.Unmarshal([]byte(strings.TrimPrefix(lines[0], "matrix=")), &matrix); err != nil {
			t.Fatal(err)
		}
		for _, b := range p.Builders {
			if len(b.OS) == 0 || len(b.Name) > 63 {
				t.Errorf("builder %+v", b)
			}
		}
		if diff := cmp.Diff(p.Builders, matrix); diff != "" {
			t.Errorf("matrix (-want +got):\n%s", diff)
		}
	})
}
