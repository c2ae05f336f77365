package release

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Make builds the release of that version for the targets. Their archives, and the
// checksums as checksums.txt, are in dir when it returns.
func (m *Module) Make(ctx context.Context, dir, version string, targets []Target) (Checksums, error) {
	c := Checksums{Version: version, Go: m.Go, Assets: make(map[string]string)}
	if err := CheckVersion(version); err != nil {
		return c, err
	}
	// This program compresses: another version of Go may do it in other bytes.
	if runtime.Version() != m.Go {
		return c, fmt.Errorf("releases are made with %s and this is %s: run it as GOTOOLCHAIN=%s go run ./release", m.Go, runtime.Version(), m.Go)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return c, err
	}
	var err error
	if c.Source, err = Digest(m.Dir); err != nil {
		return c, err
	}
	for _, t := range targets {
		sum, err := m.pack(ctx, filepath.Join(dir, Asset(version, t)), c, t)
		if err != nil {
			return c, err
		}
		c.Assets[Asset(version, t)] = sum
	}
	if now, err := Digest(m.Dir); err != nil {
		return c, err
	} else if now != c.Source {
		return c, errors.New("the source was changed while it was built: start again")
	}
	return c, os.WriteFile(filepath.Join(dir, "checksums.txt"), []byte(c.String()), 0o644)
}

// pack builds for one target, writes the archive and returns its checksum.
func (m *Module) pack(ctx context.Context, out string, c Checksums, t Target) (sum string, err error) {
	tmp, err := os.MkdirTemp("", "nix-builders-release-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	licences, modules, err := m.licences(ctx, t)
	if err != nil {
		return "", err
	}
	if err := m.Build(ctx, tmp, c.Version, t, true); err != nil {
		return "", err
	}
	own, err := os.ReadFile(filepath.Join(m.Dir, "LICENSE"))
	if err != nil {
		return "", err
	}

	var packed bytes.Buffer
	a := newArchive(&packed)
	versions := fmt.Sprintf("nix-builders %s\ntailscale %s\nplatform %s\ngo %s\nsource %s\n\nModules linked in, under the licences in licences/:\n%s\n",
		c.Version, m.Tailscale, t, strings.TrimPrefix(c.Go, "go"), c.Source, strings.Join(modules, "\n"))
	files := append([]licence{{"LICENSE", own}, {"VERSIONS", []byte(versions)}}, licences...)
	for _, f := range files {
		if err := a.file(f.name, 0o644, f.text); err != nil {
			return "", err
		}
	}
	for _, p := range m.programs("") {
		text, err := os.ReadFile(filepath.Join(tmp, p.name))
		if err != nil {
			return "", err
		}
		if err := a.file(p.name, 0o755, text); err != nil {
			return "", err
		}
	}
	if err := a.symlink("tailscale", "tailscaled"); err != nil {
		return "", err
	}
	if err := a.close(); err != nil {
		return "", err
	}
	digest := sha256.Sum256(packed.Bytes())
	return hex.EncodeToString(digest[:]), os.WriteFile(out, packed.Bytes(), 0o644)
}
