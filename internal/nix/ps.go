package nix

import (
	"path"
	"regexp"
	"strconv"
	"strings"
)

// macOS has no /proc. Where builds run as root, its processes are those that ps lists. This
// file reads ps' output; it is built everywhere so that every system's tests cover it.

// buildUserName is what Nix's installers call build users on macOS, which keeps users in a
// directory service and not in /etc/passwd.
var buildUserName = regexp.MustCompile(`^_?nixbld[0-9]+$`)

// parsePS reads ps' output, whose columns are pid, ppid, uid, user and comm.
func parsePS(out string) (buildUsers, []process) {
	users := buildUsers{ids: map[uint32]bool{}}
	var all []process
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		pid, err1 := strconv.Atoi(fields[0])
		parent, err2 := strconv.Atoi(fields[1])
		uid, err3 := strconv.ParseInt(fields[2], 10, 64) // -2 is nobody
		if err1 != nil || err2 != nil || err3 != nil {
			continue
		}
		if buildUserName.MatchString(fields[3]) {
			users.ids[uint32(uid)] = true
		}
		command := path.Base(strings.Join(fields[4:], " "))
		all = append(all, process{pid: pid, parent: parent, uid: uint32(uid), command: command, nix: command == "nix"})
	}
	return users, all
}

// parseCommands reads ps' output, whose columns are pid, ppid, uid and args. Words of a
// command that have spaces fall apart; those that links are known by have none.
func parseCommands(out string) []command {
	var all []command
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) < 4 {
			continue
		}
		pid, err1 := strconv.Atoi(fields[0])
		parent, err2 := strconv.Atoi(fields[1])
		uid, err3 := strconv.Atoi(fields[2])
		if err1 == nil && err2 == nil && err3 == nil {
			all = append(all, command{pid: pid, parent: parent, uid: uid, argv: fields[3:]})
		}
	}
	return all
}
