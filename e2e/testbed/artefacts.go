package testbed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/image"
)

// artefacts is what a lab is made of.
type artefacts struct {
	cache     image.Cache
	module    string
	root      string // the image's root file system
	tailscale string
	programs  []string // directories of our own commands
}

// Prepare makes whatever [Up] would have to make, so that Up is fast.
func Prepare(ctx context.Context, cfg Config) error {
	art, err := makeArtefacts(ctx, cfg)
	if err != nil {
		return err
	}
	if _, err := art.cache.Act(ctx, art.module); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(art.cache.Dir, "programs-")
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	return errors.Join(art.install(ctx, filepath.Join(tmp, "bin")), os.RemoveAll(tmp))
}

// makeArtefacts makes what is kept in the cache.
func makeArtefacts(ctx context.Context, cfg Config) (_ artefacts, err error) {
	art := artefacts{cache: cfg.Cache, module: cfg.Module, programs: cfg.Programs}
	if art.programs == nil {
		art.programs = Programs()
	}
	if art.cache.Logf == nil {
		art.cache.Logf = cfg.Logf
	}
	if art.cache.Dir == "" {
		if art.cache.Dir, err = image.DefaultDir(); err != nil {
			return art, err
		}
	}
	if art.module == "" {
		if art.module, err = image.FindModule("."); err != nil {
			return art, err
		}
	}
	if art.root, err = art.cache.Root(ctx, cmp.Or(cfg.Suite, image.Trixie), cfg.Mirror); err != nil {
		return art, err
	}
	art.tailscale, err = art.cache.Tailscale(ctx, art.module)
	return art, err
}

// install puts all programs of the hosts into the new directory bin, our own
// built from the source as it is now.
func (art artefacts) install(ctx context.Context, bin string) error {
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return art.cache.Program(ctx, art.module, "./e2e/lab", filepath.Join(bin, labProgram))
	})
	for _, pkg := range art.programs {
		g.Go(func() error {
			return art.cache.Program(ctx, art.module, pkg, filepath.Join(bin, filepath.Base(pkg)))
		})
	}
	g.Go(func() error {
		if err := image.CopyFile(art.tailscale, filepath.Join(bin, "tailscaled")); err != nil {
			return err
		}
		return os.Symlink("tailscaled", filepath.Join(bin, "tailscale"))
	})
	return g.Wait()
}
