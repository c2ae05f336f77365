package nix

import (
	"errors"
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

// HookConf gives the line of a nix.conf that makes Nix start this program, with these
// arguments, as its build hook. It counts in the configuration of the user that the daemon
// runs as, not in /etc/nix/nix.conf: when Nix has read that it sets the hook to its own.
func HookConf(command []string) (string, error) {
	if len(command) == 0 || !filepath.IsAbs(command[0]) {
		return "", errors.New("a build hook has to be named by its absolute path")
	}
	for _, word := range command {
		// Nix splits the line at white space, and knows no quotes.
		if word == "" || strings.ContainsAny(word, " \t\r\n#;") {
			return "", fmt.Errorf("%q can't be named in nix.conf as a word of the build hook: it must be without white space, # and ;", word)
		}
	}
	return "build-hook = " + strings.Join(command, " ") + "\n", nil
}
