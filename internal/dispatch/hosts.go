package dispatch

import (
	"context"
	"fmt"
	"strings"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/sshconf"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/textfile"
)

func (d *Dispatcher) hostsFile() textfile.File {
	return textfile.File{Path: d.cfg.Files.Hosts, Mode: 0o644}
}

// putHostsLocked lets the rest of the host call builders by the names that the workflow
// gave them; the tailnet's own DNS knows only what it made of these. Nix does without, so
// a hosts file that can't be replaced, as in a container, is no more than a warning.
func (d *Dispatcher) putHostsLocked(ctx context.Context, hosts []sshconf.Host) {
	if d.cfg.Files.Hosts == "" {
		return
	}
	var lines strings.Builder
	for _, h := range hosts {
		fmt.Fprintf(&lines, "%s %s\n", h.Addr, h.Name)
	}
	if _, err := d.hostsFile().Put(ctx, d.cfg.ID, lines.String(), textfile.Bottom); err != nil {
		d.log.Warn("the builders' names are not in the hosts file", "error", err)
	}
}

// takeHostsLocked undoes putHostsLocked.
func (d *Dispatcher) takeHostsLocked(ctx context.Context) error {
	if d.cfg.Files.Hosts == "" {
		return nil
	}
	_, err := d.hostsFile().Take(ctx, d.cfg.ID)
	return err
}
