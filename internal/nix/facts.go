package nix

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/host"
)

// Facts is what a host offers as a builder.
type Facts struct {
	Systems      []string // Nix systems, the native one first
	Features     []string // system features; kvm only if builds can really use it
	Version      string   // of Nix
	StoreProgram string   // absolute path of nix-daemon
	BuildGroup   string   // group of the users that builds run as; empty: they run as root
	Cores        int
	Memory       uint64 // bytes
	StoreFree    uint64 // bytes that /nix has left
}

// storeDir is where Nix keeps its store, and so where builds need disk.
const storeDir = "/nix"

// StoreSpace gives the bytes that there are for the store, and how many of them builds can
// still write.
func (p Programs) StoreSpace(ctx context.Context) (total, free uint64, err error) {
	return host.Disk(ctx, cmp.Or(p.Dir, storeDir))
}

// gatherTimeout bounds Gather: Nix answers in 50 ms, on a cold disk in a few seconds.
const gatherTimeout = 30 * time.Second

// Gather measures this host. Run it as root: only so is what Nix says of itself what it
// will say when the coordinator's Nix logs in.
func (p Programs) Gather(ctx context.Context, log *slog.Logger) (Facts, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, gatherTimeout, fmt.Errorf("nothing within %v", gatherTimeout))
	defer cancel()
	f, err := p.ask(ctx)
	if err != nil {
		return Facts{}, fmt.Errorf("gather facts about Nix: %w", err)
	}
	if slices.Contains(f.Features, "kvm") {
		if err := probeKVM(f.BuildGroup); err != nil {
			log.Info("builds here can't use KVM, so it is not offered", "why", err)
			f.Features = slices.DeleteFunc(f.Features, func(s string) bool { return s == "kvm" })
		}
	}
	f.Cores = host.Cores()
	if f.Memory, _, err = host.Memory(ctx); err != nil {
		return Facts{}, err
	}
	if _, f.StoreFree, err = p.StoreSpace(ctx); err != nil {
		return Facts{}, err
	}
	return f, nil
}

// ask gives the facts that Nix's programs tell.
func (p Programs) ask(ctx context.Context) (Facts, error) {
	nix, err := p.find("nix")
	if err != nil {
		return Facts{}, err
	}
	program, err := p.storeProgram(nix)
	if err != nil {
		return Facts{}, err
	}
	banner, err := p.run(ctx, "--version")
	if err != nil {
		return Facts{}, fmt.Errorf("nix --version: %w", err)
	}
	config, err := p.run(ctx, "config", "show", "--json")
	if err != nil && ctx.Err() == nil {
		// Before 2.20 the command had another name, which later versions warn about.
		config, err = p.run(ctx, "show-config", "--json")
	}
	if err != nil {
		return Facts{}, fmt.Errorf("nix config show: %w", err)
	}
	f, err := parseConfig(config)
	if err != nil {
		return Facts{}, err
	}
	if f.Version, err = parseVersion(string(banner)); err != nil {
		return Facts{}, err
	}
	f.StoreProgram = program
	return f, nil
}

// parseConfig reads what `nix config show --json` prints. Settings that an older or newer
// Nix does not have count as empty, but for the system.
func parseConfig(data []byte) (Facts, error) {
	var settings map[string]struct {
		Value json.RawMessage `json:"value"`
	}
	if err := json.Unmarshal(data, &settings); err != nil {
		return Facts{}, fmt.Errorf("read nix config show: %w", err)
	}
	get := func(name string, into any) error {
		s, ok := settings[name]
		if !ok || s.Value == nil {
			return nil
		}
		if err := json.Unmarshal(s.Value, into); err != nil {
			return fmt.Errorf("read setting %s of nix config show: %w", name, err)
		}
		return nil
	}
	var system, group string
	var extra, features []string
	for name, into := range map[string]any{
		"system": &system, "extra-platforms": &extra, "system-features": &features, "build-users-group": &group,
	} {
		if err := get(name, into); err != nil {
			return Facts{}, err
		}
	}
	if system == "" {
		return Facts{}, fmt.Errorf("read nix config show: it names no system")
	}
	slices.Sort(extra)
	slices.Sort(features)
	return Facts{
		Systems:    tidy(append([]string{system}, extra...), systemRule),
		Features:   tidy(features, featureRule),
		BuildGroup: group,
	}, nil
}

// tidy drops repeated words and those that no coordinator would take.
func tidy(words []string, rule *regexp.Regexp) []string {
	kept := []string{}
	for _, word := range words {
		if rule.MatchString(word) && !slices.Contains(kept, word) {
			kept = append(kept, word)
		}
	}
	return kept
}

var versionRule = regexp.MustCompile(`^[0-9][0-9A-Za-z._+-]*$`)

// parseVersion reads "nix (Nix) 2.26.3"; other makes of Nix put their own name and number
// before: "nix (Determinate Nix 3.11.3) 2.31.2".
func parseVersion(banner string) (string, error) {
	first, _, _ := strings.Cut(strings.TrimSpace(banner), "\n")
	fields := strings.Fields(first)
	if len(fields) == 0 || !versionRule.MatchString(fields[len(fields)-1]) || len(fields[len(fields)-1]) > 64 {
		return "", fmt.Errorf("read nix --version: no version in %.80q", first)
	}
	return fields[len(fields)-1], nil
}
