package nix

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
)

// A Machine is a builder as Nix's machines file has it. What stands in it was told by
// another host, so nothing is written that [Machine.Validate] does not know to be harmless.
type Machine struct {
	// Name stands in the store's URI. Root's ssh_config says where it leads, and Nix looks
	// for its host key by it. In lower case, as ssh compares names.
	Name string
	// User is who Nix logs in as. If empty, root.
	User string
	// StoreProgram is the absolute path of nix-daemon on the builder: a shell that is no
	// login shell finds no Nix on macOS.
	StoreProgram string
	// Systems are the Nix systems it builds for, for example x86_64-linux. At least one.
	Systems []string
	// MaxJobs is how many builds Nix may send it at a time, see the function of that name.
	MaxJobs int
	// SpeedFactor is how fast it is against the others. If zero, 1.
	SpeedFactor int
	// Features are the system features it has.
	Features []string
	// Mandatory are features that a build must ask for to be sent there.
	Mandatory []string
	// HostKey is the SSH host key it must show, "TYPE BASE64". Nothing else is accepted.
	HostKey string
	// Direct is the way to its store without ssh. With it Name is only a name, and User,
	// StoreProgram and HostKey are not used.
	Direct Direct
}

var (
	nameRule    = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$`)
	userRule    = regexp.MustCompile(`^[a-z_][a-z0-9_-]*$`)
	programRule = regexp.MustCompile(`^/[A-Za-z0-9/._+-]+$`)
	systemRule  = regexp.MustCompile(`^[a-z0-9_]+-[a-z0-9_]+$`)
	featureRule = regexp.MustCompile(`^[A-Za-z0-9._+-]*[A-Za-z0-9._+][A-Za-z0-9._+-]*$`) // "-" alone means none
)

const (
	maxCount = 4096 // of jobs, and of the speed factor
	maxList  = 64   // systems or features
	maxWord  = 1024 // bytes of any one word
)

// Validate says which member can't stand in a machines file.
func (m Machine) Validate() error {
	switch {
	case len(m.Name) > 253 || !nameRule.MatchString(m.Name) || m.Name == "localhost":
		// Nix takes localhost as an order to run the program here, without ssh.
		return fmt.Errorf("name %q is no host name in lower case", m.Name)
	case m.User != "" && (len(m.User) > 32 || !userRule.MatchString(m.User)):
		return fmt.Errorf("user %q is no user name", m.User)
	case len(m.StoreProgram) > maxWord || !programRule.MatchString(m.StoreProgram):
		return fmt.Errorf("store program %q is no absolute path of letters, digits and ._+-", m.StoreProgram)
	case len(m.Systems) == 0:
		return errors.New("it has no systems")
	case m.MaxJobs < 1 || m.MaxJobs > maxCount:
		return fmt.Errorf("max jobs %d is not within 1 to %d", m.MaxJobs, maxCount)
	case m.SpeedFactor < 0 || m.SpeedFactor > maxCount:
		return fmt.Errorf("speed factor %d is not within 0 to %d", m.SpeedFactor, maxCount)
	}
	for _, list := range []struct {
		what  string
		words []string
		rule  *regexp.Regexp
	}{
		{"system", m.Systems, systemRule},
		{"feature", m.Features, featureRule},
		{"mandatory feature", m.Mandatory, featureRule},
	} {
		if len(list.words) > maxList {
			return fmt.Errorf("it has %d %ss, more than %d", len(list.words), list.what, maxList)
		}
		for i, word := range list.words {
			if len(word) > maxWord || !list.rule.MatchString(word) {
				return fmt.Errorf("%s %q is none", list.what, word)
			}
			if slices.Contains(list.words[:i], word) {
				return fmt.Errorf("%s %q is named twice", list.what, word)
			}
		}
	}
	if m.Direct.Addr != "" {
		return m.Direct.validate(m.Name)
	}
	return checkHostKey(m.HostKey)
}

// StoreURI is how a build names the machine's store, without the host key.
func (m Machine) StoreURI() string {
	if m.Direct.Addr != "" {
		return m.Direct.uri(m.Name)
	}
	user := m.User
	if user == "" {
		user = "root"
	}
	// Only + of the letters of a program's path has a meaning in a query.
	return "ssh-ng://" + user + "@" + m.Name + "?remote-program=" + strings.ReplaceAll(m.StoreProgram, "+", "%2B")
}

// pinnedURI is the store with its host key, which a build takes from field 8 of the line.
func (m Machine) pinnedURI() string {
	if m.Direct.Addr != "" {
		return m.StoreURI()
	}
	return m.StoreURI() + "&base64-ssh-public-host-key=" + url.QueryEscape(m.encodedHostKey())
}

func (m Machine) encodedHostKey() string {
	return base64.StdEncoding.EncodeToString([]byte(m.HostKey))
}

// Line gives the machine's line of a machines file, without a newline. Its fields are the
// store, systems, the identity file (none: the tailnet authenticates), max jobs, speed
// factor, features, mandatory features and, for ssh, host key.
func (m Machine) Line() (string, error) {
	if err := m.Validate(); err != nil {
		return "", fmt.Errorf("machine %s: %w", m.Name, err)
	}
	list := func(words []string) string {
		if len(words) == 0 {
			return "-"
		}
		return strings.Join(words, ",")
	}
	fields := []string{
		m.StoreURI(), list(m.Systems), "-", strconv.Itoa(m.MaxJobs), strconv.Itoa(max(m.SpeedFactor, 1)),
		list(m.Features), list(m.Mandatory),
	}
	if m.Direct.Addr == "" {
		fields = append(fields, m.encodedHostKey())
	}
	return strings.Join(fields, " "), nil
}

// Lines gives machines as a machines file has them, ordered by name. Nix prefers the first
// of equals, so the order is the same wherever and whenever it is written.
func Lines(machines []Machine) (string, error) {
	sorted := slices.SortedFunc(slices.Values(machines), func(a, b Machine) int {
		return strings.Compare(a.Name, b.Name)
	})
	var s strings.Builder
	for i, m := range sorted {
		if i > 0 && sorted[i-1].Name == m.Name {
			return "", fmt.Errorf("machine %s is there twice", m.Name)
		}
		line, err := m.Line()
		if err != nil {
			return "", err
		}
		s.WriteString(line + "\n")
	}
	return s.String(), nil
}

// LineName gives the name of the machine that a line of [Lines] is about; empty if it is
// none.
func LineName(line string) string {
	store, _, _ := strings.Cut(line, " ")
	u, err := url.Parse(store)
	if err != nil {
		return ""
	}
	if u.Hostname() == "localhost" {
		return directName(u)
	}
	return u.Hostname()
}

// memoryPerJob is what a build is given by the rule for max jobs: linking a browser needs
// more, most builds need less.
const memoryPerJob = 2 << 30

// MaxJobs is how many builds a builder gets at a time: setting if it is over zero, else one
// a core, but no more than its memory (bytes) has 2 GiB for each; always at least 1.
func MaxJobs(setting, cores int, memory int64) int {
	if setting > 0 {
		return min(setting, maxCount)
	}
	return int(min(max(1, min(int64(cores), memory/memoryPerJob)), maxCount))
}

// HostKeys gives those of the keys that the tailnet publishes for a node, each "TYPE
// BASE64" and maybe a comment, that can be used, without comments and the best first:
// Ed25519, then ECDSA, then what is left. The first is the one to pin.
func HostKeys(keys []string) []string {
	var good []string
	for _, key := range keys {
		fields := strings.Fields(key)
		if len(fields) < 2 {
			continue
		}
		key = fields[0] + " " + fields[1]
		if checkHostKey(key) == nil && !slices.Contains(good, key) {
			good = append(good, key)
		}
	}
	slices.SortStableFunc(good, func(a, b string) int { return keyRank(a) - keyRank(b) })
	return good
}

func keyRank(key string) int {
	switch {
	case strings.HasPrefix(key, ssh.KeyAlgoED25519+" "):
		return 0
	case strings.HasPrefix(key, "ecdsa-"):
		return 1
	}
	return 2
}

func checkHostKey(key string) error {
	kind, data, ok := strings.Cut(key, " ")
	if !ok {
		return fmt.Errorf("host key %q is not TYPE BASE64", key)
	}
	wire, err := base64.StdEncoding.Strict().DecodeString(data)
	if err != nil || strings.ContainsAny(data, "\r\n") { // which the decoder skips
		return fmt.Errorf("host key %q has no base64", key)
	}
	public, err := ssh.ParsePublicKey(wire)
	if err != nil {
		return fmt.Errorf("host key %q: %w", key, err)
	}
	if public.Type() != kind {
		return fmt.Errorf("host key %q is of type %s", key, public.Type())
	}
	return nil
}
