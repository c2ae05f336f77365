package nix

import (
	"context"
	"fmt"
	"sync"
)

// A BuildCounter counts the builds that run on this host. It looks at all processes and
// is made to do so each second: a count takes well under a millisecond, unless builds run
// as root. It is safe for concurrent use.
//
// Each build runs as a user of its own, so the users that have processes are counted;
// nothing that Nix keeps on disk says it as well, and asking a daemon costs a connection.
// Where builds run as root they are counted as the daemons' children.
type BuildCounter struct {
	// Group is the build users' group ([Facts.BuildGroup]). Empty: builds run as root.
	Group string

	mu    sync.Mutex // held while counting; guards users
	users buildUsers // as far as they are known; see list
}

// Count counts the builds that run now.
func (c *BuildCounter) Count(ctx context.Context) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	processes, err := c.list(ctx)
	if err != nil {
		return 0, fmt.Errorf("count builds: %w", err)
	}
	return countBuilds(c.users, processes), nil
}

// process is what counting builds needs to know of one.
type process struct {
	pid, parent int
	uid         uint32
	command     string // base name of what runs, as the system shortens it
	nix         bool   // its program is Nix itself: a hook or a helper, no build
}

func countBuilds(users buildUsers, processes []process) int {
	slots := map[uint32]bool{}
	daemons := map[int]bool{}
	for _, p := range processes {
		if slot, ok := users.slot(p.uid); ok {
			slots[slot] = true
		}
		if p.command == "nix-daemon" {
			daemons[p.pid] = true
		}
	}
	n := len(slots)
	if users.none {
		for _, p := range processes {
			// A daemon's other children serve connections, or are hooks.
			if _, counted := users.slot(p.uid); !counted && daemons[p.parent] && !daemons[p.pid] && !p.nix {
				n++
			}
		}
	}
	return n
}
