package testbed

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/image"
)

// The lab's network. An index is the last byte of an address and names
// everything else on that cable.
const (
	controlIndex = 1
	lastIndex    = 64
	controlPort  = 8080
	// linkPrefix starts the name of each port of the switch. The links live in
	// the switch's namespace: one seen anywhere else has leaked.
	linkPrefix = "labport"
)

func address(index int) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, 0, byte(index)}) }

func hardware(index int) string { return fmt.Sprintf("02:00:0a:4d:00:%02x", index) }

func port(index int) string { return linkPrefix + strconv.Itoa(index) }

// slowPort is the port in the place of port(index) while the cable has a delay.
func slowPort(index int) string { return port(index) + "slow" }

// setUpSwitch makes the bridge in the switch's namespace.
func setUpSwitch(ctx context.Context, pid int) error {
	_, err := ipBatch(ctx, pid, "link add br0 type bridge", "link set br0 up", "link set lo up")
	return err
}

// plugIn connects a process's namespace to the switch and configures both ends.
func (l *Lab) plugIn(ctx context.Context, r role, dir string, pid int) error {
	index := controlIndex
	if r == roleHost {
		var info hostInfo
		if err := readJSON(filepath.Join(dir, "host.json"), &info); err != nil {
			return err
		}
		index = info.Index
	}
	sw, err := l.find(roleSwitch, l.dir)
	if err != nil {
		return err
	}
	if sw == 0 {
		return fmt.Errorf("the switch is not running")
	}
	if _, err := ipBatch(ctx, sw,
		fmt.Sprintf("link add %s type veth peer name eth0 address %s netns %d", port(index), hardware(index), pid),
		fmt.Sprintf("link set %s master br0 up", port(index)),
	); err != nil {
		return err
	}
	lines := []string{
		"link set lo up",
		fmt.Sprintf("addr add %s/24 dev eth0", address(index)),
		"link set eth0 up",
		// tailscaled takes a host without a default route to be offline. The
		// control server forwards nothing.
		fmt.Sprintf("route add default via %s", address(controlIndex)),
	}
	// With the neighbours known for ever, a host behind a cut cable is silent
	// rather than unreachable, as a machine in another network is.
	for i := controlIndex; i <= lastIndex; i++ {
		if i != index {
			lines = append(lines, fmt.Sprintf("neigh add %s lladdr %s dev eth0 nud permanent", address(i), hardware(i)))
		}
	}
	if r == roleControl {
		lines = lines[:3] // no route out: it is the end of the line
	}
	_, err = ipBatch(ctx, pid, lines...)
	return err
}

// Cut takes the host's cable out of the switch: what it sends and what is sent
// to it vanishes, and no connection is reset. The host itself doesn't notice.
func (h *Host) Cut(ctx context.Context) error {
	return h.plug(ctx, "nomaster")
}

// Heal puts the cable back.
func (h *Host) Heal(ctx context.Context) error {
	return h.plug(ctx, "master br0")
}

func (h *Host) plug(ctx context.Context, where string) error {
	end := port(h.info.Index)
	pid, err := h.lab.find(roleDelay, h.dir)
	if err != nil {
		return fmt.Errorf("cable of %s: %w", h.Name(), err)
	}
	if pid != 0 {
		end = slowPort(h.info.Index)
	}
	return h.lab.cable(ctx, h.Name(), end, where)
}

// CutControl takes the cable of the control server out, which is the relay's
// too: nodes that know each other go on, and learn nothing new.
func (l *Lab) CutControl(ctx context.Context) error {
	return l.cable(ctx, "the control server", port(controlIndex), "nomaster")
}

// HealControl puts that cable back.
func (l *Lab) HealControl(ctx context.Context) error {
	return l.cable(ctx, "the control server", port(controlIndex), "master br0")
}

func (l *Lab) cable(ctx context.Context, whose, end, where string) error {
	sw, err := l.find(roleSwitch, l.dir)
	if err == nil && sw == 0 {
		err = fmt.Errorf("lab %s is not up", l.name)
	}
	if err == nil {
		_, err = ipBatch(ctx, sw, fmt.Sprintf("link set %s %s", end, where))
	}
	if err != nil {
		return fmt.Errorf("cable of %s: %w", whose, err)
	}
	return nil
}

// ipBatch runs commands of ip(8) in the network namespace of the process and returns
// what they print.
func ipBatch(ctx context.Context, pid int, lines ...string) (string, error) {
	cmd := exec.CommandContext(ctx, image.FindTool("nsenter"), "--net=/proc/"+strconv.Itoa(pid)+"/ns/net",
		image.FindTool("ip"), "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ip: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
