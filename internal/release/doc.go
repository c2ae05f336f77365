// Package release makes what users download: for each platform one archive with
// nix-builders, the tailscale that belongs to it, and the licences of everything that is
// linked into them.
//
// The same source gives the same bytes, wherever and whenever it is built: the Go
// toolchain is the one that go.mod names, nothing of the machine is built in, and the
// archives are written in one order, with one time and one owner. [Checksums] says what
// the bytes are, and the digest of the source ([Digest]) of which they are made; it is
// committed, so that whoever pins a commit of the action pins its programs too.
//
// Everything here starts the go command and owns nothing else: what it makes lies in the
// directory that it is given.
package release
