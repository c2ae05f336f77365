package e2e_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// build starts nix build --max-jobs 0 of an expression of package fleet, as an ordinary
// user whom Nix does not trust. Nothing of an earlier build is used.
func (c *cluster) build(expression string, args ...string) *fleet.Process {
	c.t.Helper()
	p, err := c.Build(c.t.Context(), testbed.Runner, expression, uniqueTag(), args...)
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

// buildAnywhere is build with Nix's own choice of where to build.
func (c *cluster) buildAnywhere(expression string, args ...string) *fleet.Process {
	c.t.Helper()
	p, err := c.BuildAnywhere(c.t.Context(), testbed.Runner, expression, uniqueTag(), args...)
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

// uniqueTag makes derivations that no other build has made.
func uniqueTag() string { return fmt.Sprint(time.Now().UnixNano()) }

var storePath = regexp.MustCompile(`(?m)^/nix/store/\S+$`)

// built is the one store path that a nix build which succeeded has printed.
func (c *cluster) built(p *fleet.Process) string {
	c.t.Helper()
	c.wantExit(p, 0)
	paths := storePath.FindAllString(p.Output(), -1)
	if len(paths) != 1 {
		c.t.Fatalf("%s printed %d store paths:\n%s", p, len(paths), p.Output())
	}
	return paths[0]
}

// where returns the host that each part of a fan-in was built on, by the part's name.
func (c *cluster) where(p *fleet.Process) map[string]string {
	c.t.Helper()
	out := c.built(p)
	where := map[string]string{}
	for line := range strings.Lines(output(c.t, c.Host(c.Coordinator), testbed.Runner, "cat", out)) {
		part, host, ok := strings.Cut(strings.TrimSpace(line), " on ")
		if !ok {
			c.t.Fatalf("%s has a line %q", out, line)
		}
		where[part] = host
	}
	return where
}

// hostsOf are the hosts that something was built on.
func hostsOf(where map[string]string) []string {
	return slices.Compact(slices.Sorted(maps.Values(where)))
}
