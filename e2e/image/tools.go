package image

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// need is a file of this machine that the lab can't do without, and Debian's
// package of it.
type need struct{ file, pkg string }

var needs = []need{
	{"mmdebstrap", "mmdebstrap"}, // makes images
	{"ip", "iproute2"},           // wires hosts
	{"nsenter", "util-linux"},    // runs commands in them
	{"npm", "npm"},               // makes the client in another language
	// Says whose packages to believe; other distributions lack it.
	{"/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"},
}

// FindTool returns the path of a program of this machine. It looks where
// administrators' programs are, too, which are not on everybody's path. If there
// is none it returns the name, so that running it says what is missing.
func FindTool(name string) string {
	for _, candidate := range []string{name, "/usr/sbin/" + name, "/sbin/" + name} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	return name
}

// MissingTools names Debian's packages of what the lab needs and this machine
// does not have.
func MissingTools() []string {
	var missing []string
	for _, n := range needs {
		if _, err := os.Stat(FindTool(n.file)); err != nil {
			missing = append(missing, n.pkg)
		}
	}
	slices.Sort(missing)
	return missing
}

// InstallTools installs what [MissingTools] names, with apt and, for anybody but
// root, sudo. It says what it does.
func (c Cache) InstallTools(ctx context.Context) error {
	missing := MissingTools()
	if len(missing) == 0 {
		return nil
	}
	c.logf("installing what is missing: %s", strings.Join(missing, ", "))
	install := append([]string{"install", "--yes", "--no-install-recommends"}, missing...)
	if aptGet(ctx, install...) == nil {
		return nil
	}
	// A fresh machine may know of no packages yet.
	if err := aptGet(ctx, "update"); err != nil {
		return fmt.Errorf("install %s: %w", strings.Join(missing, ", "), err)
	}
	if err := aptGet(ctx, install...); err != nil {
		return fmt.Errorf("install %s: %w", strings.Join(missing, ", "), err)
	}
	return nil
}

func aptGet(ctx context.Context, args ...string) error {
	argv := append([]string{"apt-get"}, args...)
	if os.Geteuid() != 0 {
		argv = append([]string{"sudo", "--non-interactive", "env", "DEBIAN_FRONTEND=noninteractive"}, argv...)
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	return run(cmd)
}
