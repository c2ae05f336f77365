package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// placeLink makes link a symbolic link to target, in one step. Something else that
// stands there stays, and is an error.
func placeLink(target, link string) error {
	if err := ourLink(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return fmt.Errorf("install %s: %w", filepath.Base(link), err)
	}
	if err := renameio.Symlink(target, link); err != nil {
		return fmt.Errorf("install %s: %w", filepath.Base(link), err)
	}
	return nil
}

// removeLink takes away what placeLink made, and nothing else.
func removeLink(link string) error {
	err := ourLink(link)
	if err == nil {
		err = os.Remove(link)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// ourLink says whether link is a symbolic link to a nix-builders program, which may be
// gone: an earlier version's, or one that ran from elsewhere.
func ourLink(link string) error {
	target, err := os.Readlink(link)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return err
	case err != nil, filepath.Base(target) != "nix-builders":
		return fmt.Errorf("%s exists and is not ours: move it away or set NIX_BUILDERS_BIN_DIR", link)
	}
	return nil
}
