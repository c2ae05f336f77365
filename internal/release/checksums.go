package release

import (
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// File is where the checksums of the newest release stand in the module.
const File = "release/checksums.txt"

// None is the version in [File] as long as there is no release.
const None = "none"

// Checksums say what a release is and what it was made of.
type Checksums struct {
	Version string            // such as v1.2.3
	Go      string            // the version of Go that made it
	Source  string            // the source's digest
	Assets  map[string]string // SHA-256 by name
}

// Asset is the name of the archive for a platform.
func Asset(version string, t Target) string {
	return fmt.Sprintf("nix-builders_%s_%s_%s.tar.gz", version, t.OS, t.Arch)
}

// String is the text of a checksums file. Lines of assets are as sha256sum has them.
func (c Checksums) String() string {
	var b strings.Builder
	b.WriteString("# The release that install.sh takes. Made by `go run ./release`; see docs/releasing.md.\n")
	fmt.Fprintf(&b, "version %s\n", c.Version)
	if c.Version != None {
		fmt.Fprintf(&b, "go %s\n", c.Go)
		fmt.Fprintf(&b, "source %s\n", c.Source)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Assets)) {
		fmt.Fprintf(&b, "%s  %s\n", c.Assets[name], name)
	}
	return b.String()
}

// Parse reads a checksums file.
func Parse(text string) (Checksums, error) {
	c := Checksums{Assets: make(map[string]string)}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, _ := strings.Cut(line, " ")
		value = strings.TrimSpace(value)
		switch key {
		case "version":
			c.Version = value
		case "go":
			c.Go = value
		case "source":
			c.Source = value
		default:
			if sum, err := hex.DecodeString(key); err != nil || len(sum) != 32 || value == "" {
				return c, fmt.Errorf("%s: %q is neither a setting nor the checksum of an asset", File, line)
			}
			c.Assets[value] = key
		}
	}
	if c.Version == "" {
		return c, fmt.Errorf("%s names no version", File)
	}
	return c, nil
}

// CheckVersion tells whether a release may have this version. It is part of file names, of
// addresses and of linker flags.
func CheckVersion(version string) error {
	if !regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$`).MatchString(version) {
		return fmt.Errorf("version %q: want one such as v1.2.3 or v1.2.3-rc.1", version)
	}
	return nil
}
