package nix

import (
	"fmt"
	"slices"
	"strings"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/proc"
)

// What follows lets tests feed parsers with recordings of systems they don't run on.

var ParseBuildUsers = parseBuildUsers

func (u buildUsers) MayUse(mode, gid uint32) bool { return u.mayUse(mode, gid) }

func (u buildUsers) Slot(uid uint32) (uint32, bool) { return u.slot(uid) }

// CountPS counts the builds in what ps printed.
func CountPS(out string, rootBuilds bool) int {
	users, all := parsePS(out)
	users.none = rootBuilds
	return countBuilds(users, all)
}

// A Process is one in a made-up process table.
type Process struct {
	PID, Parent int
	UID         uint32
	Command     string
	Nix         bool
}

// CountBuilds counts the builds in a process table, for the members of group.
func CountBuilds(group, groups, passwd string, table []Process) (int, error) {
	users := buildUsers{none: true}
	if group != "" {
		var err error
		if users, err = parseBuildUsers(group, groups, passwd); err != nil {
			return 0, err
		}
	}
	var all []process
	for _, p := range table {
		all = append(all, process{pid: p.PID, parent: p.Parent, uid: p.UID, command: p.Command, nix: p.Nix})
	}
	return countBuilds(users, all), nil
}

// FindLinks finds the links of a user's hooks in what ps printed: by the pid of ssh, the
// builder and then the pids of what ssh started.
func FindLinks(out string, uid int) map[int]string {
	links := map[int]string{}
	for pid, l := range findLinks(parseCommands(out), uid) {
		slices.Sort(l.helpers)
		links[pid] = strings.TrimSpace(l.builder + " " + strings.Trim(fmt.Sprint(l.helpers), "[]"))
	}
	return links
}

// Helpers are what the link's ssh started.
func (l Link) Helpers() []proc.ID { return l.helpers }
