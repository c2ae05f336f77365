package nix

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/proc"
)

// A Link is the connection of one build hook of Nix' to a builder: one build that was sent
// there. It lasts from before the builder's store is opened until the outputs are here.
type Link struct {
	// Builder is the host's name as the machines file has it.
	Builder string
	// Process is the ssh, or what Nix runs in its place. Nix' hook started it and waits
	// for its end.
	Process proc.ID

	// helpers are what it started: ssh's ProxyCommand.
	helpers []proc.ID
}

// Links lists all links of this host's builds, in no order. Call it as root, whose hooks
// send builds away; the ssh of anybody and anything else is no link. Neither are those of
// hooks that our own build hook has started, of which the scheduler knows.
func Links(ctx context.Context) ([]Link, error) {
	// A pid alone may be another's by the time it is looked at again, so each is named
	// between two looks that agree on what it is.
	found, err := lookForLinks(ctx)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	ids := map[int]proc.ID{}
	for pid, f := range found {
		for _, p := range append(f.helpers, pid) {
			if id, err := proc.Of(p); err == nil {
				ids[p] = id
			} // else it has just ended
		}
	}
	again, err := lookForLinks(ctx)
	if err != nil {
		return nil, err
	}
	var links []Link
	for pid, f := range again {
		id, named := ids[pid]
		if !named || found[pid].builder != f.builder {
			continue // it has just begun: the next look finds it
		}
		l := Link{Builder: f.builder, Process: id}
		for _, p := range f.helpers {
			if id, named := ids[p]; named {
				l.helpers = append(l.helpers, id)
			}
		}
		links = append(links, l)
	}
	return links, nil
}

func lookForLinks(ctx context.Context) (map[int]foundLink, error) {
	table, err := listCommands(ctx)
	if err != nil {
		return nil, fmt.Errorf("list links to builders: %w", err)
	}
	return findLinks(table, os.Geteuid()), nil
}

const (
	endGrace = 500 * time.Millisecond // for ssh to end in its own way
	endLimit = 2 * time.Second        // for the kernel to end what was killed
)

// End ends the link, and with it the build: Nix' hook reads the end of the connection and
// fails. It returns when ssh and what it started are gone, which takes a moment, and nil
// too if they were already.
func (l Link) End() error {
	// In its own way ssh ends its ProxyCommand too. When it hangs in a write to a builder
	// that takes nothing any more, it has no way of its own.
	if err := l.Process.Signal(syscall.SIGTERM); err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), endGrace)
		defer cancel()
		l.Process.Await(ctx)
	}
	ctx, cancel := context.WithTimeout(context.Background(), endLimit)
	defer cancel()
	for _, id := range append([]proc.ID{l.Process}, l.helpers...) {
		if err := id.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("end the link to %s: kill process %d: %w", l.Builder, id.PID, err)
		}
		if !id.Await(ctx) {
			return fmt.Errorf("end the link to %s: process %d is still there %v after it was killed", l.Builder, id.PID, endLimit)
		}
	}
	return nil
}

// hookCommand is the command of nix that is its build hook. Nix's daemon starts it for one
// build, and so does a nix that has no daemon.
const hookCommand = "__build-remote"

// command is a process, as far as links go.
type command struct {
	pid, parent int
	uid         int // whose it is
	argv        []string
}

func (c command) isHook() bool { return len(c.argv) > 1 && c.argv[1] == hookCommand }

// isOurHook tells whether it is our own build hook, which starts Nix'.
func (c command) isOurHook() bool { return len(c.argv) > 1 && c.argv[1] == buildHook }

// builder gives the host that it connects to, as ssh or in its place; empty if it does not.
func (c command) builder() string {
	if len(c.argv) > 0 && path.Base(c.argv[0]) == "ssh" {
		return sshHost(c.argv[1:])
	}
	name, _ := dialStoreName(c.argv) // empty if it is none
	return name
}

// foundLink is a link before its processes are named.
type foundLink struct {
	builder string
	helpers []int // what ssh started
}

// findLinks finds the links in a process table, by the pid of ssh: children of hooks of the
// user. What somebody else calls a hook is none, lest Nix is thought to be busy with it.
func findLinks(table []command, uid int) map[int]foundLink {
	ours, hooks := map[int]bool{}, map[int]bool{}
	for _, c := range table {
		ours[c.pid] = c.uid == uid && c.isOurHook()
	}
	for _, c := range table {
		hooks[c.pid] = c.uid == uid && c.isHook() && !ours[c.parent]
	}
	links := map[int]foundLink{}
	for _, c := range table {
		// A child that is no ssh yet is the hook's own image still.
		if host := c.builder(); hooks[c.parent] && host != "" {
			links[c.pid] = foundLink{builder: host}
		}
	}
	for _, c := range table {
		if l, ok := links[c.parent]; ok {
			l.helpers = append(l.helpers, c.pid)
			links[c.parent] = l
		}
	}
	return links
}

// sshHost gives the host's name of ssh's arguments, which is the first that is neither an
// option nor an option's value. Nix has it first, but says so nowhere.
func sshHost(args []string) string {
	const withValue = "BbcDEeFIiJLlmOoPpQRSWw"
	for i := 0; i < len(args); i++ {
		option, isOption := strings.CutPrefix(args[i], "-")
		switch {
		case !isOption:
			return args[i][strings.LastIndexByte(args[i], '@')+1:]
		case option == "-": // what follows is no option
			continue
		}
		if at := strings.IndexAny(option, withValue); at == len(option)-1 {
			i++ // the value is the next word
		}
	}
	return ""
}
