package dispatch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/sshconf"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/textfile"
)

var _ coordinator.Dispatch = (*Dispatcher)(nil)

func (d *Dispatcher) machinesFile() textfile.File { return textfile.File{Path: d.cfg.Files.Machines} }
func (d *Dispatcher) nixConf() textfile.File      { return textfile.File{Path: d.cfg.Files.NixConf} }
func (d *Dispatcher) userConf() textfile.File     { return textfile.File{Path: d.cfg.Files.UserConf} }
func (d *Dispatcher) knownHosts() textfile.File {
	return textfile.File{Path: d.cfg.Files.KnownHosts, DirMode: 0o700}
}

// sshConfig is root's; ssh refuses one that others may write.
func (d *Dispatcher) sshConfig() textfile.File {
	return textfile.File{Path: d.cfg.Files.SSHConfig, Mode: 0o600, DirMode: 0o700}
}

func (d *Dispatcher) isClosed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

// has tells whether the machines file has m.
func (d *Dispatcher) has(m nix.Machine) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	have, ok := d.machines[m.Name]
	return ok && reflect.DeepEqual(have, m)
}

// write makes the files have hosts and machines, and ssh give up those who are gone; nil
// machines leave that file alone.
// Machines that go, go before ssh forgets them; machines that come, come after it knows
// them.
func (d *Dispatcher) write(ctx context.Context, hosts []sshconf.Host, gone []string, machines map[string]nix.Machine) error {
	known, err := sshconf.KnownHosts(hosts)
	if err != nil {
		return err
	}
	config, err := sshconf.Config(hosts, sshconf.Options{
		KnownHosts: d.cfg.Files.KnownHosts, Proxy: d.cfg.Proxy, GiveUp: d.cfg.Lease, Gone: gone,
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errClosed
	}
	if machines != nil {
		stay := maps.Clone(d.machines)
		maps.DeleteFunc(stay, func(name string, m nix.Machine) bool {
			return !reflect.DeepEqual(m, machines[name])
		})
		if len(stay) < len(d.machines) {
			if err := d.putMachinesLocked(ctx, stay); err != nil {
				return err
			}
		}
	}
	if _, err := d.knownHosts().Put(ctx, d.cfg.ID, known, textfile.Bottom); err != nil {
		return err
	}
	if _, err := d.sshConfig().Put(ctx, d.cfg.ID, config, textfile.Top); err != nil {
		return err
	}
	d.putHostsLocked(ctx, hosts)
	if machines == nil {
		return nil
	}
	return d.putMachinesLocked(ctx, machines)
}

// keepMachines takes all out of the machines file but those with these names.
func (d *Dispatcher) keepMachines(ctx context.Context, names map[string]bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errClosed
	}
	_, err := d.machinesFile().Filter(ctx, d.cfg.ID, func(line string) bool { return names[nix.LineName(line)] })
	return err
}

func (d *Dispatcher) putMachinesLocked(ctx context.Context, machines map[string]nix.Machine) error {
	lines, err := nix.Lines(slices.Collect(maps.Values(machines)))
	if err != nil {
		return err
	}
	if _, err := d.machinesFile().Put(ctx, d.cfg.ID, lines, textfile.Bottom); err != nil {
		return err
	}
	d.machines = maps.Clone(machines)
	return nil
}

// introduce tells the Nix daemon of the machines file and the build hook.
func (d *Dispatcher) introduce(ctx context.Context) error {
	conf, err := nix.Conf(d.cfg.Files.Machines)
	if err != nil {
		return err
	}
	hook := ""
	if len(d.cfg.Hook) > 0 {
		if hook, err = nix.HookConf(d.cfg.Hook); err != nil {
			return err
		}
	}
	if err := d.takeDaemon(ctx); err != nil {
		return err
	}
	defer d.releaseDaemon()
	if err := d.putConf(ctx, d.nixConf(), conf); err != nil {
		return err
	}
	if hook != "" {
		if err := d.putConf(ctx, d.userConf(), hook); err != nil {
			return err
		}
	}
	return d.refresh(ctx)
}

// putConf puts our lines at the end of a file that the daemon reads when it starts.
func (d *Dispatcher) putConf(ctx context.Context, file textfile.File, lines string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errClosed
	}
	changed, err := file.Put(ctx, d.cfg.ID, lines, textfile.Bottom)
	if changed {
		d.changes++
	}
	return err
}

// takeDaemon takes the daemon's token.
func (d *Dispatcher) takeDaemon(ctx context.Context) error {
	select {
	case d.daemon <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the Nix daemon's restart: %w", context.Cause(ctx))
	}
}

func (d *Dispatcher) releaseDaemon() { <-d.daemon }

// daemonFiles are those that the daemon reads when it starts.
func (d *Dispatcher) daemonFiles() []textfile.File {
	files := []textfile.File{d.nixConf()}
	if d.cfg.Files.UserConf != "" {
		files = append(files, d.userConf())
	}
	return files
}

// refresh restarts the daemon if it has not read its files since they changed. The caller
// has the daemon's token.
func (d *Dispatcher) refresh(ctx context.Context) error {
	d.mu.Lock()
	changes := d.changes
	d.mu.Unlock()
	if d.read == changes {
		return nil
	}
	if err := d.cfg.Restart(ctx); err != nil {
		return err
	}
	d.read = changes
	return nil
}

// Close takes the machines out of their file and ends the scheduler's queue, so that Nix
// starts no more builds on them, and forbids every later write. It can be called again.
func (d *Dispatcher) Close(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closeLocked(ctx)
}

func (d *Dispatcher) closeLocked(ctx context.Context) error {
	d.closed = true
	if d.cfg.Scheduler != nil {
		d.cfg.Scheduler.Close()
	}
	_, err := d.machinesFile().Take(ctx, d.cfg.ID)
	if err == nil {
		clear(d.machines)
	}
	return err
}

// Restore takes all blocks out of the files and has the daemon read nix.conf again. It
// closes the dispatcher too, and does all that it can: its error joins those of the steps
// that failed, and the next call tries them again.
func (d *Dispatcher) Restore(ctx context.Context) error {
	d.mu.Lock()
	errs := []error{d.closeLocked(ctx)}
	for _, f := range []textfile.File{d.sshConfig(), d.knownHosts()} {
		_, err := f.Take(ctx, d.cfg.ID)
		errs = append(errs, err)
	}
	errs = append(errs, d.takeHostsLocked(ctx))
	// Here, and not after the wait below: whatever becomes of that, later daemons start as
	// they would without us.
	for _, f := range d.daemonFiles() {
		changed, err := f.Take(ctx, d.cfg.ID)
		errs = append(errs, err)
		if changed {
			d.changes++
		}
	}
	d.mu.Unlock()

	if err := d.takeDaemon(ctx); err != nil {
		return errors.Join(append(errs, err)...)
	}
	defer d.releaseDaemon()
	return errors.Join(append(errs, d.refresh(ctx))...)
}
