package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Cache is a directory of artefacts. Any number of processes may use one.
type Cache struct {
	// Dir is where artefacts lie. It must not be empty; see [DefaultDir].
	Dir string
	// Logf hears of the slow things. If nil, nobody does.
	Logf func(format string, args ...any)
}

// DefaultDir is the cache directory when the user has not chosen one.
func DefaultDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("lab cache: %w: set NIX_BUILDERS_LAB_CACHE to a directory", err)
	}
	return filepath.Join(base, "nix-builders-lab"), nil
}

func (c Cache) logf(format string, args ...any) {
	if c.Logf != nil {
		c.Logf(format, args...)
	}
}

// recipeKey names an artefact by what it is made from.
func recipeKey(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:6])
}

// Once returns the path of the artefact called name, which build makes in the
// empty directory that it is given, if no one has made it yet.
func (c Cache) Once(ctx context.Context, name string, build func(dir string) error) (string, error) {
	final := filepath.Join(c.Dir, name)
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	unlock, err := c.lock(ctx, name)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(final); err == nil {
		return final, nil // somebody else made it while we waited
	}
	// Whatever has this name is from a maker that died: we hold its lock.
	tmp := final + ".partial"
	if err := os.RemoveAll(tmp); err != nil {
		return "", fmt.Errorf("make %s: %w", name, err)
	}
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return "", fmt.Errorf("make %s: %w", name, err)
	}
	if err := build(tmp); err != nil {
		return "", errors.Join(fmt.Errorf("make %s: %w", name, err), os.RemoveAll(tmp))
	}
	if err := os.Rename(tmp, final); err != nil {
		return "", fmt.Errorf("make %s: %w", name, err)
	}
	return final, nil
}

// CopyFile copies a program to a new file.
func CopyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	// A process that is forked meanwhile would hold dst open for a moment longer, and the
	// kernel runs no program that somebody may write to.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(dst, src); err != nil {
		dst.Close()
		return err
	}
	return dst.Close()
}
