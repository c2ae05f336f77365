package main

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

var (
	hostname = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$`)
	tailtag  = regexp.MustCompile(`^tag:[A-Za-z][A-Za-z0-9-]{0,62}$`)
	// A cluster id is printed, compared and made a directory's name; it needs no more
	// than what a repository's name and two numbers have.
	clusterID = regexp.MustCompile(`^[A-Za-z0-9._@:+-]+(/[A-Za-z0-9._@:+-]+)*$`)
)

// check says what is wrong with the values, whatever the command.
func (s *settings) check() error {
	var problems []error
	wrong := func(name, format string, args ...any) {
		problems = append(problems, fmt.Errorf("%s_%s: "+format, append([]any{prefix, name}, args...)...))
	}
	span := func(name string, d seconds, least, most time.Duration) {
		if t := time.Duration(d); t < least || t > most {
			wrong(name, "%v is out of range, want %v to %v", t, least, most)
		}
	}
	if id := s.Cluster.Cluster; id != "" && (!clusterID.MatchString(id) || len(id) > 512) {
		wrong("CLUSTER", "%q is not a cluster id, want words of letters, digits and ._@:+- separated by /", clip(id))
	}
	for name, v := range map[string]string{
		"API": s.Cluster.API, "LOGIN_SERVER": s.Tailnet.LoginServer, "WEBHOOK_URL": s.Coordinator.WebhookURL,
	} {
		if u, err := url.Parse(v); v != "" && (err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https")) {
			// The value may hold a password: it is not repeated.
			wrong(name, "not an http or https URL")
		}
	}
	for name, port := range map[string]uint16{"PORT": s.Cluster.Port, "STORE_PORT": s.Builder.StorePort} {
		if port == 0 {
			wrong(name, "0 is no port, want 1 to 65535")
		}
	}
	span("LEASE", s.Cluster.Lease, 3*time.Second, time.Hour)
	span("JOIN_TIMEOUT", s.Tailnet.JoinTimeout, 5*time.Second, 10*time.Minute)
	span("GATHER_TIMEOUT", s.Coordinator.GatherTimeout, time.Second, 7*time.Hour)
	span("BUILDER_TIMEOUT", s.Builder.BuilderTimeout, time.Second, 6*time.Hour)
	for name, tags := range map[string][]string{
		"BUILDER_TAG": {s.Cluster.BuilderTag}, "COORDINATOR_TAG": {s.Cluster.CoordinatorTag}, "TAGS": s.Tailnet.Tags,
	} {
		for _, tag := range tags {
			if !tailtag.MatchString(tag) {
				wrong(name, "%q is not a tailnet tag such as tag:nix-ci-builder", clip(tag))
			}
		}
	}
	for name, hosts := range map[string][]string{
		"HOSTNAME": {s.Tailnet.Hostname}, "COORDINATOR": {s.Builder.Coordinator}, "BUILDERS": s.Coordinator.Builders,
	} {
		for _, host := range hosts {
			if host != "" && !hostname.MatchString(host) && (name != "COORDINATOR" || !isAddress(host)) {
				wrong(name, "%q is not a host name", clip(host))
			}
		}
	}
	if n := len(s.Coordinator.Builders); n > 256 {
		wrong("BUILDERS", "%d builders, a workflow has at most 256 in a matrix", n)
	}
	if n, all := s.Coordinator.MinBuilders.total, len(s.Coordinator.Builders); n > all && all > 0 {
		wrong("MIN_BUILDERS", "%d is out of range, want 0 (all) to %d, the number of NIX_BUILDERS_BUILDERS", n, all)
	}
	for system, n := range s.Coordinator.MinBuilders.systems {
		if all := len(s.Coordinator.Builders); n > all && all > 0 {
			wrong("MIN_BUILDERS", "%s: %d is out of range, want 1 to %d, the number of NIX_BUILDERS_BUILDERS", system, n, all)
		}
	}
	if n := s.Cluster.MaxJobs; n < 0 || n > 4096 {
		wrong("MAX_JOBS", "%d is out of range, want 0 (by cores and memory) to 4096", n)
	}
	if n := s.Cluster.SpeedFactor; n < 0 || n > 1000 {
		wrong("SPEED_FACTOR", "%d is out of range, want 0 (for 1) to 1000", n)
	}
	for name, path := range map[string]string{
		"STATE_DIR": s.Files.StateDir, "MACHINES_FILE": s.Files.MachinesFile, "NIX_CONF": s.Files.NixConf,
		"SSH_CONFIG": s.Files.SSHConfig, "BIN_DIR": s.Files.BinDir,
		"HOSTS_FILE": s.Files.HostsFile, "USER_NIX_CONF": s.Files.UserNixConf,
	} {
		if !filepath.IsAbs(path) {
			wrong(name, "%q is not an absolute path", clip(path))
		}
	}
	for name, c := range map[string]struct {
		value   choice
		allowed []choice
	}{
		"NETWORKING": {s.Tailnet.Networking, []choice{"tun", "userspace"}},
		"TRANSPORT":  {s.Coordinator.Transport, []choice{transportAuto, transportDirect, transportSSH}},
		"LOG_FORMAT": {s.Log.LogFormat, []choice{"text", "json"}},
		"LOG_LEVEL":  {s.Log.LogLevel, []choice{"debug", "info", "warn", "error"}},
	} {
		if !slices.Contains(c.allowed, c.value) {
			wrong(name, "%q is none of %s", clip(string(c.value)), strings.Trim(fmt.Sprint(c.allowed), "[]"))
		}
	}
	if s.Tailnet.AuthKey != "" && s.Tailnet.AuthKeyFile != "" {
		wrong("AUTH_KEY_FILE", "set beside NIX_BUILDERS_AUTH_KEY; set only one of them")
	}
	if s.Tailnet.ClientID != "" && (s.Tailnet.AuthKey != "" || s.Tailnet.AuthKeyFile != "") {
		wrong("CLIENT_ID", "set beside an auth key; set only one of them")
	}
	if s.Tailnet.Audience != "" && s.Tailnet.ClientID == "" {
		wrong("AUDIENCE", "set without NIX_BUILDERS_CLIENT_ID, the identity that it is for")
	}
	if s.Coordinator.WebhookSecret != "" && s.Coordinator.WebhookSecretFile != "" {
		wrong("WEBHOOK_SECRET_FILE", "set beside NIX_BUILDERS_WEBHOOK_SECRET; set only one of them")
	}
	// Maps have no order; a message should have one.
	slices.SortFunc(problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(problems...)
}

// require says which of the variables a command can't do without are missing.
func (s *settings) require(names ...string) error {
	have := map[string]bool{
		"CLUSTER":  s.Cluster.Cluster != "",
		"HOSTNAME": s.Tailnet.Hostname != "",
		"BUILDERS": len(s.Coordinator.Builders) > 0,
	}
	hint := map[string]string{
		"CLUSTER":  "the cluster's id, the same for all its members; on GitHub it follows from the run",
		"HOSTNAME": "this host's name on the tailnet",
		"BUILDERS": "the host names of the builders to wait for; nix-builders plan prints them",
	}
	var problems []error
	for _, name := range names {
		if !have[name] {
			problems = append(problems, fmt.Errorf("%s_%s is not set: %s", prefix, name, hint[name]))
		}
	}
	return errors.Join(problems...)
}

func isAddress(s string) bool { _, err := netip.ParseAddr(s); return err == nil }
