package image

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/release"
)

const modulePath = "github.com/Misaka13514/setup-distributed-nix-builds"

// FindModule returns the root directory of this module, looking from dir
// upwards.
func FindModule(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.Contains(text, []byte("module "+modulePath+"\n")) {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("find the source of %s: not in or above the current directory", modulePath)
		}
		dir = parent
	}
}

// Tailscale returns the path of one program that is tailscaled, and tailscale
// when it is called by that name. The first call takes minutes.
func (c Cache) Tailscale(ctx context.Context, module string) (string, error) {
	modfile := filepath.Join(module, "tools", "go.mod")
	version, err := requiredVersion(modfile, "tailscale.com")
	if err != nil {
		return "", fmt.Errorf("build tailscaled: %w", err)
	}
	// As a release has it but for its own version: the compiler then works once for both.
	flags := []string{"-trimpath", "-tags=" + release.TailscaleTags, "-ldflags=-s -w"}
	name := "tailscale-" + version + "-" + recipeKey(version, strings.Join(flags, " "), runtime.Version(), runtime.GOARCH)
	dir, err := c.Once(ctx, name, func(dir string) error {
		c.logf("building tailscaled %s: a few minutes, once", version)
		return goBuild(ctx, module, append(flags, "-modfile="+modfile,
			"-o", filepath.Join(dir, "tailscaled"), "tailscale.com/cmd/tailscaled")...)
	})
	return filepath.Join(dir, "tailscaled"), err
}

// Act returns the path of act, which runs workflows. The first call takes a
// minute.
func (c Cache) Act(ctx context.Context, module string) (string, error) {
	modfile := filepath.Join(module, "tools", "act.mod")
	version, err := requiredVersion(modfile, "github.com/nektos/act")
	if err != nil {
		return "", fmt.Errorf("build act: %w", err)
	}
	const ldflags = "-s -w"
	name := "act-" + version + "-" + recipeKey(version, ldflags, runtime.Version(), runtime.GOARCH)
	dir, err := c.Once(ctx, name, func(dir string) error {
		c.logf("building act %s: a minute, once", version)
		return goBuild(ctx, module, "-modfile="+modfile, "-ldflags="+ldflags,
			"-o", filepath.Join(dir, "act"), "github.com/nektos/act")
	})
	return filepath.Join(dir, "act"), err
}

// Program builds the command in the module's directory pkg, such as
// "./cmd/nix-builders", and copies it to the new file out.
func (c Cache) Program(ctx context.Context, module, pkg, out string) error {
	// The program stays where it was built, for the go command links it anew
	// only if it would differ. Each module has its own: work trees differ.
	name := "go-" + filepath.Base(pkg) + "-" + recipeKey(module)
	unlock, err := c.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	built := filepath.Join(c.Dir, name)
	if err := goBuild(ctx, module, "-o", built, pkg); err != nil {
		return fmt.Errorf("build %s: %w", pkg, err)
	}
	return CopyFile(built, out)
}

// goBuild builds for a host of the lab, which has no C library to rely on. The
// state of the work tree is not stamped in: it would make every commit link anew,
// and git does not show root somebody else's repository.
func goBuild(ctx context.Context, module string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-buildvcs=false"}, args...)...)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOFLAGS=")
	return run(cmd)
}

// requiredVersion returns the version at which a go.mod requires the module.
func requiredVersion(modfile, path string) (string, error) {
	text, err := os.ReadFile(modfile)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(f) >= 2 && f[0] == path {
			return f[1], nil
		}
	}
	return "", fmt.Errorf("%s does not require %s", modfile, path)
}
