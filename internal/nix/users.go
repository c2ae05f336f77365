package nix

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Nix's automatic build users (auto-allocate-uids) have ids of their own instead of a
// group: slots of 65,536 ids each, from Nix's default for start-id on.
const (
	autoStart = 0x34000000
	autoSlots = 128
	autoSize  = 1 << 16
)

// buildUsers are the users that builds run as.
type buildUsers struct {
	none   bool // builds run as root
	gid    uint32
	ids    map[uint32]bool
	groups map[uint32]bool // groups that every one of them is in
}

// readBuildUsers reads the members of group from /etc/group and /etc/passwd, as Nix does.
func readBuildUsers(group string) (buildUsers, error) {
	if group == "" {
		return buildUsers{none: true}, nil
	}
	groups, err := os.ReadFile("/etc/group")
	if err != nil {
		return buildUsers{}, err
	}
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return buildUsers{}, err
	}
	return parseBuildUsers(group, string(groups), string(passwd))
}

func parseBuildUsers(group, groups, passwd string) (buildUsers, error) {
	u := buildUsers{ids: map[uint32]bool{}, groups: map[uint32]bool{}}
	memberships := map[uint32][]string{}
	var members []string
	found := false
	for line := range strings.Lines(groups) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) != 4 {
			continue
		}
		gid, err := strconv.ParseUint(fields[2], 10, 32)
		if err != nil {
			continue
		}
		list := strings.FieldsFunc(fields[3], func(r rune) bool { return r == ',' })
		memberships[uint32(gid)] = list
		if fields[0] == group {
			found, members, u.gid = true, list, uint32(gid)
		}
	}
	if !found {
		return u, errors.New("the group of the build users, " + group + ", does not exist")
	}
	for line := range strings.Lines(passwd) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) < 4 || !slices.Contains(members, fields[0]) {
			continue
		}
		if uid, err := strconv.ParseUint(fields[2], 10, 32); err == nil {
			u.ids[uint32(uid)] = true
		}
	}
	for gid, list := range memberships {
		if len(members) > 0 && !slices.ContainsFunc(members, func(m string) bool { return !slices.Contains(list, m) }) {
			u.groups[gid] = true
		}
	}
	u.groups[u.gid] = true
	return u, nil
}

// mayUse tells whether the users can read and write what has this mode and group.
func (u buildUsers) mayUse(mode, gid uint32) bool {
	const others, group = 0o006, 0o060
	return u.none || mode&others == others || mode&group == group && u.groups[gid]
}

// slot tells whether uid is a build user, and which: builds have a user each, and with
// automatic users a range of them.
func (u buildUsers) slot(uid uint32) (uint32, bool) {
	if uid >= autoStart && uid < autoStart+autoSlots*autoSize {
		return autoStart + (uid-autoStart)/autoSize, true
	}
	return uid, u.ids[uid]
}

func notExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
