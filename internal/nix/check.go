package nix

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Store is what a builder's store said of itself when it was opened.
type Store struct {
	Version string // of the builder's Nix; empty if it did not say
	Trusted bool   // whether it takes what we send it without a signature
}

// checkTimeout bounds one check, from starting ssh to the store's answer.
const checkTimeout = 30 * time.Second

// CheckStore opens m's store as a build would: the same URI, the same pinned host key,
// root's own ssh_config. Call it as root. The error is one line, says what went wrong and
// what to look at, not with whom, and wraps [context.DeadlineExceeded] if the store was
// too slow.
func (p Programs) CheckStore(ctx context.Context, m Machine) (Store, error) {
	if err := m.Validate(); err != nil {
		return Store{}, fmt.Errorf("open its store: %w: %w", ErrUnusable, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, checkTimeout, errSlowStore)
	defer cancel()
	out, err := p.run(ctx, "store", "info", "--json", "--store", m.pinnedURI())
	var s Store
	if err == nil {
		s, err = parseStoreInfo(out)
	}
	if err != nil {
		return Store{}, fmt.Errorf("open its store: %w", advise(m, err))
	}
	return s, nil
}

// ErrUnusable is wrapped by the errors of machines that no second try can make usable.
var ErrUnusable = errors.New("unusable as a builder")

var errSlowStore = fmt.Errorf("no answer within %v: %w", checkTimeout, context.DeadlineExceeded)

// parseStoreInfo reads what `nix store info --json` prints. Trust is a number up to 2.26
// and a truth value by 2.34; a store that does not know is silent.
func parseStoreInfo(data []byte) (Store, error) {
	var info struct {
		Trusted json.RawMessage `json:"trusted"`
		Version string          `json:"version"`
	}
	// ssh runs LocalCommand before, so be content with the last line.
	data = bytes.TrimSpace(data)
	if i := bytes.LastIndexByte(data, '\n'); i >= 0 {
		data = data[i+1:]
	}
	if err := json.Unmarshal(data, &info); err != nil {
		return Store{}, fmt.Errorf("read nix store info: %w", err)
	}
	switch string(info.Trusted) {
	case "true", "1":
		return Store{Version: info.Version, Trusted: true}, nil
	case "false", "0":
		return Store{}, errors.New("the builder's store does not trust us: builds must log in as root there, or as one of its trusted-users")
	case "", "null":
		return Store{Version: info.Version}, nil
	}
	return Store{}, fmt.Errorf("read nix store info: trusted is %.20q", info.Trusted)
}

// advice says what to look at, by a phrase of ssh, the remote shell or Nix. The first that
// fits counts, so what explains more stands first.
var advice = []struct{ phrase, look string }{
	{"host key verification failed", "its SSH host key is not the one the tailnet publishes for it; was the node replaced, or are its keys newer than its tailscale up?"},
	{"requires an additional check", "the tailnet policy lets the coordinator in only after a person's check; builders need the action accept"},
	{"tailnet policy does not permit", "let the coordinator's tag ssh to the builder's tag as root in the tailnet policy"},
	{"permission denied", "let the coordinator's tag ssh to the builder's tag as root in the tailnet policy, and bring the builder up with Tailscale SSH"},
	{"connection refused", "nothing serves SSH there; was the builder's tailscale brought up with --ssh?"},
	{"could not resolve hostname", "root's ssh does not know the name; is root's ~/.ssh/config the one that was written, and readable?"},
	{"bad owner or permissions", "ssh refuses root's ~/.ssh/config; it must belong to root and be writable by nobody else"},
	{"bad configuration option", "ssh does not understand root's ~/.ssh/config"},
	{"connection timed out", "does the tailnet policy let the coordinator reach port 22 of the builder?"},
	{"no answer within", "does the tailnet policy let the coordinator reach port 22 of the builder, and is its host not overloaded?"},
	{"no such file or directory", "the builder's nix-daemon is not where it said"},
	{"command not found", "the builder's nix-daemon is not where it said"},
	{"daemon disconnected unexpectedly", "the program at the other end is not a nix-daemon that works; try it there with --stdio"},
	{"protocol mismatch", "the other end is no nix-daemon, or its shell prints something at login"},
	{"is not installed", "install Nix and OpenSSH on the coordinator's host"},
}

// directAdvice is that for the direct way, by phrases of our own and of Nix. %s stands for
// the port.
var directAdvice = []struct{ phrase, look string }{
	{"no answer within", "does the tailnet policy let the coordinator reach port %s of the builder?"},
	{"i/o timeout", "does the tailnet policy let the coordinator reach port %s of the builder?"},
	{"connection refused", "nobody serves port %s there; is the builder's agent still there?"},
	{"the builder refuses", "what answers at port %s serves another coordinator, or nobody; is it this builder's agent?"},
	{"daemon disconnected unexpectedly", "the program that the agent at port %s runs is not a nix-daemon that works; try it there with --stdio"},
	{"protocol mismatch", "what the agent at port %s runs is no nix-daemon"},
}

func advise(m Machine, err error) error {
	text, list, port := strings.ToLower(err.Error()), advice, ""
	if m.Direct.Addr != "" {
		list, port = directAdvice, m.Direct.Addr[strings.LastIndexByte(m.Direct.Addr, ':')+1:]
	}
	for _, a := range list {
		if strings.Contains(text, a.phrase) {
			return fmt.Errorf("%w (%s)", err, strings.Replace(a.look, "%s", port, 1))
		}
	}
	return err
}
