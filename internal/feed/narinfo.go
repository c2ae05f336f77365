package feed

import (
	"errors"
	"path"
	"strings"

	"github.com/nix-community/go-nix/pkg/narinfo"
	"github.com/nix-community/go-nix/pkg/narinfo/signature"
	"github.com/nix-community/go-nix/pkg/nixhash"
)

// narinfo is the path as a binary cache tells of it.
func (p Path) narinfo(hash string) (*narinfo.NarInfo, error) {
	if p.NarSize <= 0 {
		return nil, errors.New("it has no bytes")
	}
	if strings.ContainsAny(p.CA, "\r\n") { // Check looks at all else
		return nil, errors.New("its content address is more than a line")
	}
	narHash, err := nixhash.ParseAny(p.NarHash, nil)
	if err != nil {
		return nil, err
	}
	sig, err := signature.ParseSignature(p.Signature)
	if err != nil {
		return nil, err
	}
	info := &narinfo.NarInfo{
		StorePath: p.Path, URL: narPrefix[1:] + hash + narSuffix, Compression: "none",
		NarHash: narHash, NarSize: uint64(p.NarSize), FileHash: narHash, FileSize: uint64(p.NarSize),
		CA: p.CA, Signatures: []signature.Signature{sig},
	}
	if p.Deriver != "" {
		info.Deriver = path.Base(p.Deriver)
	}
	for _, r := range p.References {
		info.References = append(info.References, path.Base(r))
	}
	return info, info.Check()
}
