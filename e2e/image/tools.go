package image

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// tool is a program of this machine that the lab runs, and Debian's package of
// it.
type tool struct{ program, pkg string }

var hostTools = []tool{
	{"mmdebstrap", "mmdebstrap"}, // makes images
	{"ip", "iproute2"},           // wires hosts
	{"nsenter", "util-linux"},    // runs commands in them
}

// MissingTools names Debian's packages of the programs that the lab needs and
// this machine does not have.
func MissingTools() []string {
	var missing []string
	for _, t := range hostTools {
		if _, err := exec.LookPath(t.program); err != nil {
			missing = append(missing, t.pkg)
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(missing)))
}

// InstallTools installs what [MissingTools] names, with apt and, for anybody but
// root, sudo. It says what it does.
func (c Cache) InstallTools(ctx context.Context) error {
	missing := MissingTools()
	if len(missing) == 0 {
		return nil
	}
	argv := append([]string{"apt-get", "install", "--yes", "--no-install-recommends"}, missing...)
	if os.Geteuid() != 0 {
		argv = append([]string{"sudo", "--non-interactive"}, argv...)
	}
	c.logf("installing what is missing: %s", strings.Join(argv, " "))
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if err := run(cmd); err != nil {
		return fmt.Errorf("install %s: %w", strings.Join(missing, ", "), err)
	}
	return nil
}
