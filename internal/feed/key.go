package feed

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/nix-community/go-nix/pkg/narinfo/signature"
)

// LoadKey reads the key that signs a run's paths from a file, and makes it if there is none:
// a server that is started again goes on with it. Name is part of the key, as Nix has it.
func LoadKey(path, name string) (signature.SecretKey, error) {
	var none signature.SecretKey
	text, err := os.ReadFile(path)
	switch {
	case err == nil:
		key, err := signature.LoadSecretKey(strings.TrimSpace(string(text)))
		if err != nil {
			// Its text is no part of the error: that would be the key.
			return none, fmt.Errorf("the key in %s can't be read; remove the file, and another is made", path)
		}
		return key, nil
	case !errors.Is(err, fs.ErrNotExist):
		return none, fmt.Errorf("read the key of the run's paths: %w", err)
	}
	key, _, err := signature.GenerateKeypair(name, rand.Reader)
	if err == nil {
		err = renameio.WriteFile(path, []byte(key.String()+"\n"), 0o600)
	}
	if err != nil {
		return none, fmt.Errorf("make a key for the run's paths: %w", err)
	}
	return key, nil
}
