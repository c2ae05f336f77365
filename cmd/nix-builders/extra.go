package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/rundir"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/textfile"
)

// extraFile says what of the user's own configuration stands in nix.conf. It outlives the
// builder: later steps of the job count on the configuration, until nix-builders leave.
const extraFile = "extra.json"

// extraConf is the block of the user's lines in nix.conf.
type extraConf struct {
	File  string `json:"file"`
	Block string `json:"block"`
}

// configureNix appends the lines of NIX_BUILDERS_EXTRA_NIX_CONFIG to nix.conf, if this
// host's Nix takes them.
func (a *app) configureNix(ctx context.Context, d *rundir.Dir, role string) error {
	lines := strings.TrimSpace(strings.ReplaceAll(a.set.Files.ExtraNixConfig, "\r\n", "\n"))
	if lines == "" {
		return nil
	}
	for line := range strings.Lines(lines) {
		if strings.HasPrefix(line, "# BEGIN nix-builders") || strings.HasPrefix(line, "# END nix-builders") {
			return fmt.Errorf("%s_EXTRA_NIX_CONFIG: %.100q is one of the markers by which nix-builders finds its own lines", prefix, line)
		}
	}
	programs := nix.Programs{Path: os.Getenv("PATH")}
	warnings, err := programs.CheckConf(ctx, lines, filepath.Dir(a.set.Files.NixConf))
	if err != nil {
		return fmt.Errorf("%s_EXTRA_NIX_CONFIG: %w", prefix, err)
	}
	for _, w := range warnings {
		fmt.Fprintf(a.stdout, "%s_EXTRA_NIX_CONFIG: %s\n", prefix, printable(w))
	}
	// # is in no cluster id: the block's name is nobody else's.
	extra := extraConf{File: a.set.Files.NixConf, Block: a.set.Cluster.Cluster + "#" + role}
	if err := d.Save(extraFile, 0o644, extra); err != nil {
		return err
	}
	changed, err := textfile.File{Path: extra.File}.Put(ctx, extra.Block, lines, textfile.Bottom)
	if err != nil {
		return err
	}
	if !changed {
		return nil
	}
	daemon := nix.Daemon{Programs: programs, Log: a.log}
	return daemon.Restart(ctx)
}

// restoreNix undoes configureNix.
func (a *app) restoreNix(d *rundir.Dir) error {
	var extra extraConf
	switch err := d.Load(extraFile, &extra); {
	case errors.Is(err, rundir.ErrNone):
		return nil
	case err != nil:
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), restoreBound)
	defer cancel()
	changed, err := textfile.File{Path: extra.File}.Take(ctx, extra.Block)
	if err != nil || !changed {
		return err
	}
	daemon := nix.Daemon{Programs: nix.Programs{Path: os.Getenv("PATH")}, Log: a.log}
	return daemon.Restart(ctx)
}
