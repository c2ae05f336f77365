package dispatch

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/sshconf"
)

const (
	// linkTime bounds the listing of links.
	linkTime = 2 * time.Second
	// cutAgain is when builds for builders that are gone are looked for again: later than
	// those that were found have ended.
	cutAgain = 3 * time.Second
)

// Builds counts the builds that run on each machine that Nix sends builds to, by its name
// in the machines file: those of the scheduler, and those that Nix' own hook has sent.
// Copying to it and back is part of a build.
func (d *Dispatcher) Builds(ctx context.Context) (map[string]int, error) {
	links, err := d.links(ctx)
	counts := make(map[string]int)
	if d.cfg.Scheduler != nil {
		maps.Copy(counts, d.cfg.Scheduler.Running())
	}
	for _, l := range links {
		counts[l.Builder]++
	}
	return counts, err
}

func (d *Dispatcher) links(ctx context.Context) ([]nix.Link, error) {
	if d.cfg.Links == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, linkTime)
	defer cancel()
	return d.cfg.Links(ctx)
}

// lose notes that a builder is gone: builds for it are looked for, and ssh gives up on it.
func (r *reconciler) lose(b coordinator.Builder) {
	name := strings.ToLower(b.Name)
	r.gone[name], r.dropped = time.Now().Add(r.d.cfg.Lease), true
	r.known[name] = true
}

// absent are the names of builders that are gone, and not among the hosts again: a hook may
// still try them.
func (r *reconciler) absent(hosts []sshconf.Host) (names []string) {
	for name := range r.known {
		if name == "localhost" { // which a builder may call itself, and is refused for
			continue
		}
		if !slices.ContainsFunc(hosts, func(h sshconf.Host) bool { return h.Name == name }) {
			names = append(names, name)
		}
	}
	return names
}

// cutOff ends what Nix has sent to members that were dropped, so that Nix goes on: a
// connection to a machine that is silent would hang. It looks again for a lease, since a
// hook may connect by a machines file that it has read before. The links are listed before
// anything else is done, for a builder that is back gets new ones soon.
func (r *reconciler) cutOff(ctx context.Context) {
	for _, m := range r.members {
		if m.stage >= checked && !m.rests {
			delete(r.gone, m.machine.Name) // it is back, and may have new builds
		}
	}
	if len(r.gone) == 0 || time.Since(r.cut) < cutAgain && !r.dropped {
		return
	}
	r.cut, r.dropped = time.Now(), false
	links, err := r.d.links(ctx)
	if err != nil && ctx.Err() == nil {
		r.d.log.Error("builds on builders that are gone may hang; looking again", "err", err)
	}
	for name, until := range r.gone {
		var lost []nix.Link
		for _, l := range links {
			if l.Builder == name {
				lost = append(lost, l)
			}
		}
		if len(lost) > 0 {
			r.goroutines.Go(func() { r.d.end(name, lost) }) // each of them has a bound
		}
		if time.Now().After(until) {
			delete(r.gone, name)
		}
	}
}

// end ends the links to a builder.
func (d *Dispatcher) end(name string, links []nix.Link) {
	var ending errgroup.Group
	for _, l := range links {
		ending.Go(l.End)
	}
	if err := ending.Wait(); err != nil {
		d.log.Error("a build on a builder that is gone may hang", "builder", name, "err", err)
		return
	}
	d.log.Warn("ended the builds that Nix had sent to a builder that is gone", "builder", name, "builds", len(links))
}
