package hook

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/machinesfile"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
)

// restarts tells whether there is a scheduler that does not answer now: it has died, and is
// about to be started again, or it hangs. One that has ended in order leaves no socket.
func (h *hook) restarts() bool {
	_, err := os.Lstat(h.Socket)
	return err == nil && h.Machines != ""
}

// ours is the setting builders that means the scheduler's machines.
func (h *hook) ours(c *scheduler.Client) string {
	if h.Machines != "" {
		return "@" + h.Machines
	}
	return strings.TrimSpace(c.Builders())
}

// listed tells whether a machine of a machines file could do what is requested: then it is
// worth to wait for a scheduler that does not answer. By Nix' own hook a build would be lost
// with its builder.
func (h *hook) listed(q *request, builders string) bool {
	file, ok := strings.CutPrefix(builders, "@")
	if !ok {
		return false
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	machines, err := machinesfile.Parse(string(text), q.system)
	return err == nil && slices.ContainsFunc(machines, q.fits)
}

// fits tells whether a machine could do what is requested, by the rule of Nix' own hook.
func (q *request) fits(m machinesfile.Machine) bool {
	has := func(f string) bool { return slices.Contains(m.Features, f) || slices.Contains(m.Mandatory, f) }
	wants := func(f string) bool { return slices.Contains(q.features, f) }
	return (q.system == "builtin" || slices.Contains(m.Systems, q.system)) &&
		!slices.ContainsFunc(q.features, func(f string) bool { return !has(f) }) &&
		!slices.ContainsFunc(m.Mandatory, func(f string) bool { return !wants(f) })
}

// alone lets Nix' own hook look for a builder, since nobody else does.
func (h *hook) alone(ctx context.Context) (Exit, error) {
	h.seat.leave()
	h.sweep(ctx)
	h.out.say(levelWarn, "warning: the scheduler of the builders is gone, Nix looks for a builder for '%s' itself", h.request.derivation)
	var said []string
	for {
		a, code, err := h.try(ctx, scheduler.Message{})
		if err != nil {
			return Exit{}, err
		}
		text := a.cause()
		final, reason := judge(text, scheduler.Condition{Unknown: "there is no scheduler"}, slices.Contains(said, a.signature()))
		switch {
		case a.end.gone:
			a.flush()
			return Exit{}, context.Cause(ctx)
		case a.end.timedOut != "":
			a.flush()
			h.out.say(levelError, "error: %s", a.end.timedOut)
			return Exit{Code: exitTimedOut}, nil
		case a.stage != building:
			a.flush()
			return Exit{}, fmt.Errorf("build '%s': the scheduler of the builders is gone, and Nix has no builder for it", h.request.derivation)
		case code == 0 || text == "" || final || h.tries+1 >= maxTries:
			a.flush()
			return Exit{Code: code}, nil
		}
		h.tries++
		said = append(said, a.signature())
		h.out.say(levelWarn, "warning: '%s' begins again: %s", h.request.derivation, reason)
	}
}

// sweep removes the socket of a scheduler that has died and was not started again, so that
// no other build waits for it.
func (h *hook) sweep(ctx context.Context) {
	c, err := dial(ctx, h.Socket)
	closeClient(c)
	if errors.Is(err, syscall.ECONNREFUSED) {
		_ = os.Remove(h.Socket) // the next one tries, too
	}
}
