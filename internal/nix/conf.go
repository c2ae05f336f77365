package nix

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Conf gives the lines of nix.conf that make Nix build on the machines of a file. They go
// to its end, as the last setting of a name wins. The daemon reads nix.conf when it
// starts, see [Daemon.Restart]; the machines file is read anew by every build.
func Conf(machines string) (string, error) {
	if !filepath.IsAbs(machines) || strings.ContainsAny(machines, "\r\n#;") {
		return "", fmt.Errorf("machines file %q can't be named in nix.conf: it must be absolute, on one line, without # and ;", machines)
	}
	// Substitutes: a builder fetches what a cache has by itself, not through the coordinator.
	// Poll: with 5 s, which is the default, a slot that came free stays empty for so long.
	return "builders = @" + machines + "\n" +
		"builders-use-substitutes = true\n" +
		"build-poll-interval = 1\n", nil
}
