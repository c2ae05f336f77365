package nix

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
