package image

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Suites of Debian that hosts can be made from, by their Nix version.
const (
	Trixie = "trixie" // Nix 2.26
	Sid    = "sid"    // Nix 2.34
)

// packages is what a host has beside Debian's minimum.
var packages = []string{
	"nix-bin", "openssh-client", "iproute2", "busybox-static", "procps",
	"sudo", "curl", "jq", "openssl", "ca-certificates", "nodejs",
}

// customize gives the root file system its users and a builder's tool box.
//
//go:embed customize.sh
var customize string

// Root returns the root file system of hosts of the suite: a directory that
// nobody may write to. The first call takes a minute and root.
//
// The packages come from mirror; if empty, from where this machine's own apt
// takes its Debian packages.
func (c Cache) Root(ctx context.Context, suite, mirror string) (string, error) {
	name := fmt.Sprintf("root-%s-%s", suite, recipeKey(append([]string{suite, customize}, packages...)...))
	dir, err := c.Once(ctx, name, func(dir string) error {
		if mirror == "" {
			var err error
			if mirror, err = aptMirror(ctx); err != nil {
				return err
			}
		}
		c.logf("making the %s image from %s: about a minute, once", suite, mirror)
		start := time.Now()
		hook := filepath.Join(dir, "customize.sh")
		if err := os.WriteFile(hook, []byte(customize), 0o755); err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, FindTool("mmdebstrap"),
			"--mode=root", "--variant=minbase", "--quiet",
			"--include="+strings.Join(packages, ","),
			// Sid is a snapshot on some mirrors.
			`--aptopt=Acquire::Check-Valid-Until "false"`,
			"--dpkgopt=path-exclude=/usr/share/man/*",
			"--dpkgopt=path-exclude=/usr/share/locale/*",
			"--customize-hook="+hook,
			suite, filepath.Join(dir, "root"), mirror)
		if err := run(cmd); err != nil {
			return err
		}
		c.logf("made the %s image in %.0f s", suite, time.Since(start).Seconds())
		return os.Remove(hook)
	})
	return filepath.Join(dir, "root"), err
}

// aptMirror returns the mirror that this machine's apt takes Debian from.
func aptMirror(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets",
		"--format", "$(ORIGIN) $(LABEL) $(SITE)", "Created-By: Packages").Output()
	if err != nil {
		return "", fmt.Errorf("ask apt for its mirror: %w: set NIX_BUILDERS_LAB_MIRROR to a Debian mirror", err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == "Debian" && f[1] == "Debian" {
			return f[2], nil
		}
	}
	return "", fmt.Errorf("apt has no Debian mirror on this machine (run apt-get update if it should): set NIX_BUILDERS_LAB_MIRROR to one")
}

// run runs cmd, whose output is in the error if it fails.
func run(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, bytes.TrimSpace(out))
	}
	return nil
}
