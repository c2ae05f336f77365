package nix

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// A Direct is a way to a machine's store without ssh: in its place Nix runs a program here
// that connects to the machine's agent, see package direct.
type Direct struct {
	// Addr is where the agent serves the store, ADDRESS:PORT. Empty: there is no such way.
	Addr string
	// Program is the absolute path of ours.
	Program string
	// Dir is where Program finds what it shares with the coordinator, an absolute path.
	// "." is the directory that it was called in, "-" is none.
	Dir string
}

// DialStore is the command of ours that connects to an agent.
const DialStore = "dial-store"

// buildHook is the command of ours that is a build hook. What it starts is known to the
// scheduler.
const buildHook = "build-hook"

// maxURI is how long a store's URI may be: Nix makes names of lock files of it, which have
// up to 12 bytes more, and file systems have room for 255.
const maxURI = 220

// uri names the store of the machine called name. Nix takes localhost as an order to run
// the program here in ssh's place, and splits it at spaces; the name is for those who look
// at the line or at the process.
func (d Direct) uri(name string) string {
	command := strings.Join([]string{d.Program, DialStore, d.Addr, d.Dir, name}, " ")
	return "ssh-ng://localhost?remote-program=" + uriEscapes.Replace(command)
}

// uriEscapes replaces what has a meaning in a query, of the letters that commands have.
var uriEscapes = strings.NewReplacer(" ", "%20", "+", "%2B", "[", "%5B", "]", "%5D")

func (d Direct) validate(name string) error {
	addr, err := netip.ParseAddrPort(d.Addr)
	switch {
	case err != nil || addr.Port() == 0 || addr.Addr().Zone() != "" || addr.String() != d.Addr:
		return fmt.Errorf("direct address %q is not ADDRESS:PORT", d.Addr)
	case len(d.Program) > maxWord || !programRule.MatchString(d.Program):
		return fmt.Errorf("%q can't be named in a store's URI: use an absolute path of letters, digits and ._+-", d.Program)
	case d.Dir != "." && d.Dir != "-" && !programRule.MatchString(d.Dir):
		return fmt.Errorf("directory %q can't be named in a store's URI: use an absolute path of letters, digits and ._+-", d.Dir)
	}
	if uri := d.uri(name); len(uri) > maxURI {
		return fmt.Errorf("the URI of its direct store has %d bytes, and Nix makes file names of it: %d is the most; use shorter names", len(uri), maxURI)
	}
	return nil
}

// dialStoreName gives the machine's name of a command line that is DialStore's.
func dialStoreName(argv []string) (string, error) {
	const name = 4
	if len(argv) <= name || argv[1] != DialStore || !nameRule.MatchString(argv[name]) {
		return "", errors.New("no command that dials a machine's store")
	}
	return argv[name], nil
}

// directName gives the machine's name of a store's URI that is a Direct's; empty if it is
// another.
func directName(u *url.URL) string {
	name, err := dialStoreName(strings.Fields(u.Query().Get("remote-program")))
	if err != nil {
		return ""
	}
	return name
}
