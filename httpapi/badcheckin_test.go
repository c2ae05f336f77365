package httpapi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

// A change makes a good body bad: it sets the member at a pointer to raw JSON.
type change struct {
	at    string // JSON Pointer of the member; its parent is there
	to    string // raw JSON; empty: the member is taken out
	want  problem.Slug
	field string // that the problem names, if it is not at
}

// checkInChanges has every member of a check-in in every way that it can be wrong.
func checkInChanges() (all []change) {
	long := func(n int) string { return `"` + strings.Repeat("a", n) + `"` }
	add := func(at, to string, want problem.Slug, field ...string) {
		c := change{at, to, want, at}
		if len(field) > 0 {
			c.field = field[0]
		}
		all = append(all, c)
	}
	required := []string{
		"/cluster", "/name", "/instance", "/offer", "/offer/systems", "/offer/cores", "/offer/memory_bytes",
		"/offer/store_free_bytes", "/offer/features", "/offer/nix_version", "/offer/store_program",
		"/vitals/cpu_percent", "/vitals/memory_free_bytes", "/vitals/store_free_bytes", "/vitals/builds",
	}
	for _, at := range required {
		add(at, "", problem.Malformed)
	}
	for _, at := range append(required, "/offer/host_keys", "/offer/host_keys/0", "/offer/systems/0", "/vitals",
		"/offer/max_jobs", "/offer/speed_factor", "/offer/store_port", "/vitals/peak_builds", "/vitals/busy_seconds") {
		add(at, "null", problem.Malformed)
		add(at, "true", problem.Malformed)
	}
	for _, at := range []string{"/cluster", "/name", "/instance", "/offer/nix_version", "/offer/store_program",
		"/offer/systems/0", "/offer/features/1", "/offer/host_keys/0"} {
		add(at, "1", problem.Malformed)
		add(at, "{}", problem.Malformed)
		add(at, `["x"]`, problem.Malformed)
		add(at, `"\ud800"`, problem.Malformed)
	}
	for _, at := range []string{"/offer/cores", "/offer/memory_bytes", "/offer/store_free_bytes",
		"/offer/max_jobs", "/offer/speed_factor", "/offer/store_port",
		"/vitals/memory_free_bytes", "/vitals/store_free_bytes", "/vitals/builds", "/vitals/peak_builds"} {
		for _, to := range []string{`"1"`, "1.5", "1e400", "18446744073709551616", "{}", "[]"} {
			add(at, to, problem.Malformed)
		}
		add(at, "-1", problem.Invalid)
		add(at, "-9223372036854775808", problem.Invalid)
		add(at, "9223372036854775807", problem.Invalid)
	}
	for _, at := range []string{"/vitals/cpu_percent", "/vitals/busy_seconds"} {
		for _, to := range []string{"NaN", "Infinity", "-Infinity", "+1", "1.", ".5", "1e400", "-1e400", `"NaN"`} {
			add(at, to, problem.Malformed)
		}
		for _, to := range []string{"0x1", "01"} {
			add(at, to, problem.Malformed, "/vitals") // the number is 0, and what follows is wrong
		}
		for _, to := range []string{"-0.1", "1000000000.1", "1e300"} {
			add(at, to, problem.Invalid)
		}
	}
	add("/vitals/cpu_percent", "100.1", problem.Invalid)
	for _, at := range []string{"/offer/systems", "/offer/features", "/offer/host_keys", "/offer", "/vitals"} {
		add(at, `"x"`, problem.Malformed)
		add(at, "3", problem.Malformed)
	}
	add("/cluster", `""`, problem.Invalid)
	add("/cluster", long(513), problem.Invalid)
	add("/cluster", `"owner/repo/123/2"`, problem.WrongCluster, "")
	add("/name", `""`, problem.Invalid)
	add("/name", long(254), problem.Invalid)
	add("/name", `"b 1"`, problem.Invalid)
	add("/name", `"-b1"`, problem.Invalid)
	add("/name", `"b1\n"`, problem.Invalid)
	add("/name", `"b2"`, problem.NotYours, "")
	add("/name", `"b9"`, problem.NotExpected, "")
	add("/instance", `""`, problem.Malformed)
	add("/instance", `"b1"`, problem.Malformed)
	add("/instance", `"00000000-0000-0000-0000-000000000000"`, problem.Invalid)
	add("/instance", `"urn:uuid:6ba7b810-9dad-11d1-80b4-00c04fd430c8"`, problem.Malformed)
	add("/instance", `"6ba7b8109dad11d180b400c04fd430c8"`, problem.Malformed)
	add("/offer/cores", "0", problem.Invalid)
	add("/offer/cores", "4097", problem.Invalid)
	add("/offer/memory_bytes", "0", problem.Invalid)
	add("/offer/max_jobs", "0", problem.Invalid)
	add("/offer/max_jobs", "4097", problem.Invalid)
	add("/offer/store_port", "0", problem.Invalid)
	add("/offer/store_port", "65536", problem.Invalid)
	add("/offer/speed_factor", "0", problem.Invalid)
	add("/offer/speed_factor", "1001", problem.Invalid)
	add("/vitals/builds", "65537", problem.Invalid)
	add("/vitals/peak_builds", "65537", problem.Invalid)
	add("/offer/systems", "[]", problem.Invalid)
	add("/offer/systems", `["x86_64-linux","x86_64-linux"]`, problem.Invalid, "/offer/systems/1")
	add("/offer/systems", items(17, `"s%d-linux"`), problem.Invalid)
	add("/offer/systems/1", `"linux"`, problem.Invalid)
	add("/offer/systems/1", `"x86_64-linux,kvm"`, problem.Invalid)
	add("/offer/systems/1", long(65), problem.Invalid)
	add("/offer/features", items(65, `"f%d"`), problem.Invalid)
	add("/offer/features", `["kvm","kvm"]`, problem.Invalid, "/offer/features/1")
	add("/offer/features/0", `""`, problem.Invalid)
	add("/offer/features/0", `"a,b"`, problem.Invalid)
	add("/offer/features/0", long(65), problem.Invalid)
	add("/offer/nix_version", `""`, problem.Invalid)
	add("/offer/nix_version", long(65), problem.Invalid)
	add("/offer/nix_version", `"2.3 rm"`, problem.Invalid)
	add("/offer/store_program", `"nix-daemon"`, problem.Invalid)
	add("/offer/store_program", `"/bin/x y"`, problem.Invalid)
	add("/offer/store_program", `"/`+strings.Repeat("a", 1024)+`"`, problem.Invalid)
	add("/offer/host_keys", items(9, `"ssh-ed25519 AAAAAAAA%d"`), problem.Invalid)
	add("/offer/host_keys/0", `"ssh-ed25519"`, problem.Invalid)
	add("/offer/host_keys/0", `"ssh-ed25519 AAAAAAAA\nroot ALL"`, problem.Invalid)
	for _, at := range []string{"/more", "/offer/more", "/vitals/more", "/Name", "/offer/Cores"} {
		add(at, "1", problem.Malformed)
	}
	return all
}

func items(n int, format string) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf(format, i)
	}
	return "[" + strings.Join(all, ",") + "]"
}

// apply returns body with the change made.
func (c change) apply(t *testing.T, body any) string {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal(text, &tree); err != nil {
		t.Fatal(err)
	}
	const here = "\x01here\x01"
	steps := strings.Split(c.at, "/")[1:]
	parent := tree
	for _, step := range steps[:len(steps)-1] {
		parent = parent.(map[string]any)[step]
	}
	last := steps[len(steps)-1]
	switch p := parent.(type) {
	case map[string]any:
		p[last] = here
		if c.to == "" {
			delete(p, last)
		}
	case []any:
		var i int
		if _, err := fmt.Sscan(last, &i); err != nil {
			t.Fatal(err)
		}
		p[i] = here
	}
	text, err = json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	mark, _ := json.Marshal(here)
	return string(bytes.Replace(text, mark, []byte(c.to), 1))
}

func TestBadCheckIns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		before := w.cluster.View()
		for _, c := range checkInChanges() {
			body := c.apply(t, checkIn("b1"))
			res := w.do(t, builder1.Addr, http.MethodPost, "/check-ins", "application/json", body)
			p := problemIn(res)
			if p.Slug != c.want || (p.Field != c.field && p.Slug != "") {
				t.Errorf("%s set to %.40s: got %d %s at %q (%s), want %s at %q",
					c.at, c.to, p.Status, p.Slug, p.Field, p.Detail, c.want, c.field)
			}
			if p.Slug == problem.Malformed && p.Detail == "" {
				t.Errorf("%s set to %.40s: the problem has no detail", c.at, c.to)
			}
		}
		w.unharmed(t, before.Revision)
	})
}
