package feed

import "net/netip"

// A Page is what has changed of an index since a cursor.
type Page struct {
	Cursor int64  // to ask with for the next page
	Peers  []Peer // all builders that serve paths now
	Paths  []Path // that are new, or have other holders
}

// A Peer is a builder that serves paths to the others.
type Peer struct {
	Name string // as holders are called
	Node string // the tailnet's stable id
	Addr netip.AddrPort
}

// A Path is a valid store path, as the coordinator's store has it.
type Path struct {
	Path       string   // /nix/store/...
	NarHash    string   // sha256:BASE32
	NarSize    int64    // bytes
	References []string // store paths
	Deriver    string   // store path; empty if not known
	CA         string   // content address; empty if it has none
	Signature  string   // KEYNAME:BASE64, by the run's key
	Holders    []string // peers that have it, by name
}
