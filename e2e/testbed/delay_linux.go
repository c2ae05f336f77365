package testbed

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// runDelay delays the frames of a host's cable, in the switch's network namespace. What
// comes out of the host's port goes to the bridge through a port of this process, and the
// other way round. That port lives as long as the process.
func runDelay(dir string, ready func()) error {
	info, d, err := readDelay(dir)
	if err != nil {
		return err
	}
	bridge, err := openTap(slowPort(info.Index))
	if err != nil {
		return fmt.Errorf("make the port %s: %w", slowPort(info.Index), err)
	}
	defer bridge.Close()
	host, err := openPort(port(info.Index))
	if err != nil {
		return fmt.Errorf("open the port %s: %w", port(info.Index), err)
	}
	defer host.Close()
	ended := make(chan error, 2)
	go func() { ended <- forward(bridge, host, d) }()
	go func() { ended <- forward(host, bridge, d) }()
	ready()
	return <-ended
}

const (
	// maxFrame holds the largest packet that kernels hand on in one piece, with what
	// stands before it.
	maxFrame = 1 << 17
	// cableFrames is how many frames a cable holds, each way; more are lost.
	cableFrames = 1 << 13
)

// forward hands frames on, each d after it came.
func forward(from, to *os.File, d time.Duration) error {
	type frame struct {
		due  time.Time
		data []byte
	}
	cable := make(chan frame, cableFrames)
	defer close(cable)
	go func() { // ends when the cable is closed
		for f := range cable {
			time.Sleep(time.Until(f.due))
			// Nobody is told of a frame that can't be sent: this is a cable.
			_, _ = to.Write(f.data)
		}
	}()
	buffer := make([]byte, maxFrame)
	for {
		n, err := from.Read(buffer)
		if errors.Is(err, unix.ENETDOWN) {
			continue // said once when a link goes down
		}
		if err != nil {
			return err
		}
		select {
		case cable <- frame{time.Now().Add(d), append([]byte(nil), buffer[:n]...)}:
		default:
		}
	}
}

// Both ends have virtio's header before each frame. So the kernel hands on packets that
// are still to be cut into pieces and summed up, as it does on the cable itself.

// openTap makes a port in this network namespace that ends with the file.
func openTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	// The one of a process that was just killed may be there for a moment.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			break
		}
	}
	if err == nil {
		const tcp = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
		const udp = unix.TUN_F_USO4 | unix.TUN_F_USO6
		if err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp|udp); err != nil { // older kernels know no udp
			err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp)
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// openPort returns a socket for all frames that come into the port, which sends through it.
func openPort(name string) (*os.File, error) {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in the network's order
	// Without a protocol nothing comes in before it is bound to the port.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	for _, option := range []struct{ level, name, value int }{
		{unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1},
		{unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1},
		{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32 << 20},
		{unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 32 << 20},
	} {
		if err := unix.SetsockoptInt(fd, option.level, option.name, option.value); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("socket option %d: %w", option.name, err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
