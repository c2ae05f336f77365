package act

import (
	"context"
	_ "embed"
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

//go:embed flake/flake.nix
var flake []byte

// Repository makes a repository with a flake, whose packages are my-package, with
// derivations for each of the systems, farm, with many for one, and broken.
func (b *Bed) Repository(ctx context.Context, systems ...string) (dir string, err error) {
	dir, err = os.MkdirTemp(b.dir(), "repository-")
	if err != nil {
		return "", err
	}
	list, err := json.Marshal(systems)
	if err != nil {
		return "", err
	}
	busybox, err := b.Lab.Host(testbed.Coordinator).ReadFile(ctx, "/opt/bb/bin/busybox")
	if err != nil {
		return "", err
	}
	for _, f := range []struct {
		name string
		text []byte
		perm os.FileMode
	}{{"flake.nix", flake, 0o644}, {"systems.json", list, 0o644}, {"tools/busybox", busybox, 0o755}} {
		name := filepath.Join(dir, f.name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(name, f.text, f.perm); err != nil {
			return "", err
		}
	}
	return dir, nil
}
