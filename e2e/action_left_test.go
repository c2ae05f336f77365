package e2e_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	godiff "github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/act"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// inspect looks at a job's host when the run is over.
func (p *play) inspect(j *act.Job) {
	mark := func(format string, args ...any) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.marks = append(p.marks, j.String()+": "+fmt.Sprintf(format, args...))
	}
	for _, left := range j.Left {
		mark("still runs: %v", left)
	}
	disk := j.Host.Disk()
	err := filepath.WalkDir(disk, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		path := strings.TrimPrefix(name, disk)
		if !slices.ContainsFunc(stays, func(r *regexp.Regexp) bool { return r.MatchString(path) }) {
			mark("the file %s is left", path)
		}
		if e.Type().IsRegular() {
			text, err := os.ReadFile(name)
			for _, secret := range p.secrets {
				if bytes.Contains(text, []byte(secret)) {
					mark("the file %s holds a secret", path)
				}
			}
			return err
		}
		return nil
	})
	if err != nil {
		mark("%v", err)
	}
	installed, err := os.ReadFile(filepath.Join(disk, "opt/lab/nix.conf"))
	if err == nil {
		now, _ := os.ReadFile(filepath.Join(disk, "etc/nix/nix.conf"))
		if diff := godiff.Diff(string(installed), string(now)); diff != "" {
			mark("nix.conf is not as it was (-before +after):\n%s", diff)
		}
	}
	hosts, _ := os.ReadFile(filepath.Join(disk, "etc/hosts"))
	if strings.Contains(string(hosts), "nix-builder-") {
		mark("/etc/hosts still names builders:\n%s", hosts)
	}
	state, _ := j.Host.Output(p.t.Context(), "sh", "-c", "ls -d /run/nix-builders /run/tailscale/*; ls /sys/class/net; head -n 1 /etc/resolv.conf")
	if want := "eth0\nlo\nnameserver " + p.s.Lab.Host(testbed.Coordinator).IP().String(); state != want {
		mark("what is left in /run and of the network: %q, want %q", state, want)
	}
}

// stays are the files of a host's disk that the lab, the installer of Nix, Nix itself and
// sudo leave there.
var stays = []*regexp.Regexp{
	regexp.MustCompile(`^/opt/lab/(system|nix\.conf)$`),
	regexp.MustCompile(`^/etc/(hostname|hosts|resolv\.conf|nix/nix\.conf|sudoers\.d/runner|ssl/certs/lab-authority\.pem)$`),
	regexp.MustCompile(`^/usr/bin/nix`),
	regexp.MustCompile(`^/usr/local/bin/(systemctl|cachix)$`),
	regexp.MustCompile(`^/var/log/nix-daemon\.log$`),
	regexp.MustCompile(`^/var/lib/sudo/`),
	regexp.MustCompile(`^/(root|home/runner)/\.(cache|local/state|local/share)/nix/`),
}
