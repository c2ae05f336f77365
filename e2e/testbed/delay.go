package testbed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Delay makes everything take d longer on the host's cable, each way: a round trip to
// it takes 2d longer. Zero takes the delay away. What is on the cable while it changes is
// lost, as is what waits there when the host dies. [Host.Cut] and [Host.Heal] work as
// without it, and a restart keeps it.
//
// Frames go through a process of the lab for it, since kernels often lack the queue that
// delays: in one order, and as fast as they come but for the delay.
func (h *Host) Delay(ctx context.Context, d time.Duration) error {
	if err := h.delay(ctx, d); err != nil {
		return fmt.Errorf("delay the cable of %s: %w", h.Name(), err)
	}
	return nil
}

func (h *Host) delay(ctx context.Context, d time.Duration) error {
	sw, err := h.lab.find(roleSwitch, h.lab.dir)
	if err != nil {
		return err
	}
	if pid, err := h.pid(); err != nil || sw == 0 || pid == 0 {
		return errors.Join(h.dead(), err)
	}
	ports, err := ipBatch(ctx, sw, "link show master br0")
	if err != nil {
		return err
	}
	cut := !strings.Contains(ports, " "+port(h.info.Index)+"@") && !strings.Contains(ports, " "+slowPort(h.info.Index)+":")
	if err := h.endDelay(ctx); err != nil {
		return err
	}
	if d == 0 {
		if err := os.Remove(h.delayFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if cut {
			return nil
		}
		_, err := ipBatch(ctx, sw, fmt.Sprintf("link set %s master br0", port(h.info.Index)))
		return err
	}
	if err := os.WriteFile(h.delayFile(), []byte(d.String()), 0o644); err != nil {
		return err
	}
	return h.startDelay(ctx, sw, cut)
}

// delayFile is where the delay of the host's cable stands, if it has one.
func (h *Host) delayFile() string { return filepath.Join(h.dir, "delay") }

// startDelay puts a process that delays between the host's port and the switch.
func (h *Host) startDelay(ctx context.Context, sw int, cut bool) error {
	if _, err := h.lab.start(ctx, roleDelay, h.dir); err != nil {
		return err
	}
	lines := []string{
		fmt.Sprintf("link set %s nomaster", port(h.info.Index)),
		fmt.Sprintf("link set %s up", slowPort(h.info.Index)),
	}
	if !cut {
		lines = append(lines, fmt.Sprintf("link set %s master br0", slowPort(h.info.Index)))
	}
	_, err := ipBatch(ctx, sw, lines...)
	return err
}

// endDelay ends the process, and with it its port.
func (h *Host) endDelay(ctx context.Context) error {
	return killAll(ctx, func() ([]process, error) {
		all, err := roles(h.lab.dir)
		var found []process
		for _, p := range all {
			if p.argv[1] == string(roleDelay) && p.argv[2] == h.dir {
				found = append(found, p)
			}
		}
		return found, err
	})
}

// start runs the host with the disk and the cable that it has.
func (h *Host) start(ctx context.Context) error {
	if _, err := h.lab.start(ctx, roleHost, h.dir); err != nil {
		return err
	}
	if _, err := os.Stat(h.delayFile()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	sw, err := h.lab.find(roleSwitch, h.lab.dir)
	if err != nil {
		return err
	}
	return h.startDelay(ctx, sw, false)
}

// readDelay is what the process reads: which cable, and how slow it is.
func readDelay(dir string) (info hostInfo, d time.Duration, err error) {
	if err := readJSON(filepath.Join(dir, "host.json"), &info); err != nil {
		return info, 0, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "delay"))
	if err != nil {
		return info, 0, err
	}
	d, err = time.ParseDuration(string(text))
	return info, d, err
}
