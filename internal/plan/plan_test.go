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
	if err := p.WriteOutputs(&out); err != nil {
		t.Fatal(err)
	}
	want := `builder_matrix=[{"os":"ubuntu-24.04","id":"ubuntu-24.04-1"},{"os":"ubuntu-24.04","id":"ubuntu-24.04-2"},{"os":"macos-26","id":"macos-26-1"}]
builders_list=nix-builder-a1b2c3-ubuntu-24.04-1 nix-builder-a1b2c3-ubuntu-24.04-2 nix-builder-a1b2c3-macos-26-1
run_suffix=a1b2c3
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("outputs (-want +got):\n%s", diff)
	}
}

func TestRefused(t *testing.T) {
	many := make([]string, 20)
	for i := range many {
		many[i] = fmt.Sprintf(`"os-%d": 20`, i)
	}
	for _, c := range []struct{ name, counts, suffix, want string }{
		{"empty", "", "a1", "no builder counts"},
		{"blank", " \n", "a1", "no builder counts"},
		{"not JSON", "{ubuntu: 1}", "a1", "not JSON"},
		{"cut off", `{"u": 1`, "a1", "not JSON"},
		{"array", `["ubuntu"]`, "a1", "not a JSON object"},
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
		if err := p.WriteOutputs(&out); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if len(lines) != 3 {
			t.Fatalf("%d lines: %q", len(lines), out.String())
		}
		var matrix []plan.Builder
		if err := json.Unmarshal([]byte(strings.TrimPrefix(lines[0], "builder_matrix=")), &matrix); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(p.Builders, matrix); diff != "" {
			t.Errorf("matrix (-want +got):\n%s", diff)
		}
	})
}
