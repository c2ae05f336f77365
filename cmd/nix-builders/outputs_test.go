package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/actions"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/rundir"
)

func TestOutputs(t *testing.T) {
	for name, c := range map[string]apiclient.Cluster{"a cluster": cluster(), "nobody": {}} {
		t.Run(name, func(t *testing.T) {
			var log strings.Builder
			out, env := filepath.Join(t.TempDir(), "output"), filepath.Join(t.TempDir(), "env")
			for _, path := range []string{out, env} {
				if err := os.WriteFile(path, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			a := &app{set: &settings{}, step: &step{log: actions.NewLog(&log), files: actions.Files{Output: out, Env: env}}}
			a.set.Files.MachinesFile = "/etc/nix/machines"
			for i := range c.Builders {
				// Nobody but a liar is called so.
				c.Builders[i].Name += "\nx=y\n::error::z"
			}
			if err := a.setOutputs(rundir.Server{API: "http://100.64.0.1:8378/v1"}, c, 34200*time.Millisecond); err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for line := range strings.Lines(string(text)) {
				k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
				got[k] = v
			}
			want := map[string]string{
				"api": "http://100.64.0.1:8378/v1", "machines_file": "/etc/nix/machines", "gather_seconds": "34.2",
				"builders": "[]", "systems": "[]", "builders_ready": "0", "builders_expected": "0", "cores": "0", "max_jobs": "0",
			}
			if name != "nobody" {
				want["systems"], want["builders_ready"], want["builders_expected"] = `["aarch64-linux","x86_64-linux"]`, "2", "6"
				want["cores"], want["max_jobs"] = "8", "8"
				list, _ := json.Marshal([]readyBuilder{
					{c.Builders[0].Name, []string{"x86_64-linux"}, 4, 4}, {c.Builders[1].Name, []string{"aarch64-linux"}, 4, 4},
				})
				want["builders"] = string(list)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("outputs (-want +got):\n%s", diff)
			}
			if text, err := os.ReadFile(env); err != nil || string(text) != "NIX_BUILDERS_API=http://100.64.0.1:8378/v1\n" {
				t.Errorf("variables: %q, %v", text, err)
			}
			if n := strings.Count(log.String(), "\n"); n != 1 || !strings.HasPrefix(log.String(), "::notice title=The builders are ready::") {
				t.Errorf("the log:\n%s", log.String())
			}
		})
	}
}
