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

// setUpSwitch makes the bridge in the switch's namespace.
func setUpSwitch(ctx context.Context, pid int) error {
	return ipBatch(ctx, pid, "link add br0 type bridge", "link set br0 up", "link set lo up")
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
	if err := ipBatch(ctx, sw,
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
	return ipBatch(ctx, pid, lines...)
}

// Cut takes the host's cable out of the switch: what it sends and what is sent
// to it vanishes, and no connection is reset. The host itself doesn't notice.
func (h *Host) Cut(ctx context.Context) error {
	return h.lab.cable(ctx, h.Name(), h.info.Index, "nomaster")
}

// Heal puts the cable back.
func (h *Host) Heal(ctx context.Context) error {
	return h.lab.cable(ctx, h.Name(), h.info.Index, "master br0")
}

// CutControl takes the cable of the control server out, which is the relay's
// too: nodes that know each other go on, and learn nothing new.
func (l *Lab) CutControl(ctx context.Context) error {
	return l.cable(ctx, "the control server", controlIndex, "nomaster")
}

// HealControl puts that cable back.
func (l *Lab) HealControl(ctx context.Context) error {
	return l.cable(ctx, "the control server", controlIndex, "master br0")
}

func (l *Lab) cable(ctx context.Context, whose string, index int, where string) error {
	sw, err := l.find(roleSwitch, l.dir)
	if err == nil && sw == 0 {
		err = fmt.Errorf("lab %s is not up", l.name)
	}
	if err == nil {
		err = ipBatch(ctx, sw, fmt.Sprintf("link set %s %s", port(index), where))
	}
	if err != nil {
		return fmt.Errorf("cable of %s: %w", whose, err)
	}
	return nil
}

// ipBatch runs commands of ip(8) in the network namespace of the process.
func ipBatch(ctx context.Context, pid int, lines ...string) error {
	cmd := exec.CommandContext(ctx, image.FindTool("nsenter"), "--net=/proc/"+strconv.Itoa(pid)+"/ns/net",
		image.FindTool("ip"), "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
