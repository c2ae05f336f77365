package nixstore

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/nix-community/go-nix/pkg/nixbase32"
	"github.com/nix-community/go-nix/pkg/wire"
)

// ErrInvalid says that a path is not valid in the store: it is not there, or not all of it.
var ErrInvalid = errors.New("not valid in the store")

// Info is what a store knows of a valid path.
type Info struct {
	Path       string   `json:"path"`
	NarHash    string   `json:"nar_hash"` // sha256:BASE32
	NarSize    int64    `json:"nar_size"` // bytes
	References []string `json:"references"`
	Deriver    string   `json:"deriver,omitempty"` // empty if not known
	CA         string   `json:"ca,omitempty"`      // content address; empty if it has none
}

// PathInfo says what the store knows of a path, or [ErrInvalid].
func (c *Conn) PathInfo(ctx context.Context, path string) (Info, error) {
	info := Info{Path: path}
	valid := false
	err := c.ask(ctx, opPathInfo, path, func() (err error) {
		if valid, err = wire.ReadBool(c.r); err != nil || !valid {
			return err
		}
		return c.readInfo(&info)
	})
	if err == nil && !valid {
		err = ErrInvalid
	}
	if err != nil {
		return Info{}, fmt.Errorf("ask the Nix daemon about %s: %w", path, err)
	}
	return info, nil
}

func (c *Conn) readInfo(info *Info) (err error) {
	if info.Deriver, err = wire.ReadString(c.r, maxString); err != nil {
		return err
	}
	hash, err := wire.ReadString(c.r, maxString)
	if err != nil {
		return err
	}
	sum, err := hex.DecodeString(hash)
	if err != nil || len(sum) != 32 {
		return fmt.Errorf("the daemon gives %q for a SHA-256", hash)
	}
	info.NarHash = "sha256:" + nixbase32.EncodeToString(sum)
	if info.References, err = c.readStrings(); err != nil {
		return err
	}
	if err := c.skip("n"); err != nil { // when it was registered
		return err
	}
	size, err := wire.ReadUint64(c.r)
	if err != nil {
		return err
	}
	if info.NarSize = int64(size); info.NarSize < 0 {
		return fmt.Errorf("the daemon gives %d for a size", size)
	}
	if err := c.skip("n"); err != nil { // whether it was built here
		return err
	}
	if _, err := c.readStrings(); err != nil { // signatures
		return err
	}
	info.CA, err = wire.ReadString(c.r, maxString)
	return err
}

func (c *Conn) readStrings() ([]string, error) {
	n, err := c.count()
	if err != nil {
		return nil, err
	}
	var all []string
	for range n {
		s, err := wire.ReadString(c.r, maxString)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// Outputs gives the paths of a derivation's outputs by their names. A path that nobody knows
// before it is built is empty.
func (c *Conn) Outputs(ctx context.Context, drv string) (map[string]string, error) {
	outputs := make(map[string]string)
	err := c.ask(ctx, opOutputMap, drv, func() error {
		n, err := c.count()
		if err != nil {
			return err
		}
		for range n {
			name, err := wire.ReadString(c.r, maxString)
			if err != nil {
				return err
			}
			if outputs[name], err = wire.ReadString(c.r, maxString); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("ask the Nix daemon for the outputs of %s: %w", drv, err)
	}
	return outputs, nil
}
