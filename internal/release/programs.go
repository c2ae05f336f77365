package release

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// TailscaleTags are the build tags of tailscale.com/cmd/tailscaled that make it tailscale
// too, when it is called by that name.
const TailscaleTags = "ts_include_cli"

// A program is one of those that a release has.
type program struct {
	name    string
	pkg     string
	flags   []string // that say which module and which files it is made of
	ldflags []string
}

// programs are those of a release; version is what nix-builders says of itself.
func (m *Module) programs(version string) []program {
	tailscale := strings.TrimPrefix(m.Tailscale, "v")
	return []program{
		{
			name: "nix-builders", pkg: "./cmd/nix-builders",
			ldflags: []string{"-X main.version=" + version},
		},
		{name: "nix-builders-hook", pkg: "./cmd/nix-builders-hook"},
		{
			// The file must bear the daemon's name: for each SSH session tailscaled starts
			// itself anew, by that name.
			name: "tailscaled", pkg: "tailscale.com/cmd/tailscaled",
			flags: []string{"-modfile=tools/go.mod", "-tags=" + TailscaleTags},
			// Without them it takes itself for a build from a work tree.
			ldflags: []string{
				"-X tailscale.com/version.shortStamp=" + tailscale,
				"-X tailscale.com/version.longStamp=" + tailscale,
			},
		},
	}
}

// Build builds the programs for the target into dir: nix-builders, nix-builders-hook,
// tailscaled, and tailscale, which is the same program. With pinned it takes the version of Go that
// makes releases; else the one that the go command chooses.
func (m *Module) Build(ctx context.Context, dir, version string, t Target, pinned bool) error {
	dir, err := filepath.Abs(dir) // go runs in the module
	if err != nil {
		return err
	}
	toolchain := ""
	if pinned {
		toolchain = m.Go
	}
	for _, p := range m.programs(version) {
		args := slices.Concat(
			[]string{"build", "-trimpath", "-buildvcs=false", "-ldflags=" + strings.Join(append([]string{"-s", "-w"}, p.ldflags...), " ")},
			p.flags, []string{"-o", filepath.Join(dir, p.name), p.pkg})
		fmt.Fprintf(m.stderr, "building %s for %s\n", p.name, t)
		if _, err := m.run(ctx, m.goCommand(ctx, toolchain, t, args...)); err != nil {
			return fmt.Errorf("build %s for %s: %w", p.name, t, err)
		}
	}
	link := filepath.Join(dir, "tailscale")
	if err := os.Remove(link); err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.Symlink("tailscaled", link)
}
