package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/google/renameio/v2"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/rundir"
)

// placeLink makes link a symbolic link to target, in one step. Something else that
// stands there stays, and is an error.
func placeLink(target, link string) error {
	if err := ourLink(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return fmt.Errorf("install %s: %w", filepath.Base(link), err)
	}
	if err := renameio.Symlink(target, link); err != nil {
		return fmt.Errorf("install %s: %w", filepath.Base(link), err)
	}
	return nil
}

// removeLink takes away what placeLink made, and nothing else.
func removeLink(link string) error {
	err := ourLink(link)
	if err == nil {
		err = os.Remove(link)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// ourLink says whether link is a symbolic link to a nix-builders program, which may be
// gone: an earlier version's, or one that ran from elsewhere.
func ourLink(link string) error {
	target, err := os.Readlink(link)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return err
	case err != nil, filepath.Base(target) != "nix-builders":
		return fmt.Errorf("%s exists and is not ours: move it away or set NIX_BUILDERS_BIN_DIR", link)
	}
	return nil
}

// linksFile says which links to other programs than ours were made, and what they lead
// to, by path.
const linksFile = "links.json"

// systemPath is where every process of a host finds programs, sudo's among them.
const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// installTailscale makes tailscale a command on this host, for later steps of the job,
// unless it is one.
func (a *app) installTailscale(d *rundir.Dir, program string) error {
	link := filepath.Join(a.set.Files.BinDir, "tailscale")
	if _, err := os.Lstat(link); os.Geteuid() != 0 || err == nil {
		return nil
	}
	for _, dir := range filepath.SplitList(systemPath) {
		if executable(filepath.Join(dir, "tailscale")) {
			return nil
		}
	}
	program, err := exec.LookPath(program)
	if err != nil {
		return err
	}
	if program, err = filepath.Abs(program); err != nil {
		return err
	}
	// Written down first: what is not there is not removed either.
	if err := d.Save(linksFile, 0o644, map[string]string{link: program}); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return err
	}
	return os.Symlink(program, link) // what was put there since stays
}

// removeLinks undoes installTailscale.
func removeLinks(d *rundir.Dir) error {
	var links map[string]string
	switch err := d.Load(linksFile, &links); {
	case errors.Is(err, rundir.ErrNone):
		return nil
	case err != nil:
		return err
	}
	var problems []error
	for link, target := range links {
		if now, err := os.Readlink(link); err != nil || now != target {
			continue // gone, or somebody else's by now
		}
		problems = append(problems, os.Remove(link))
	}
	return errors.Join(problems...)
}
