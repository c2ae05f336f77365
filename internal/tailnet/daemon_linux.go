package tailnet

import "os"

const (
	// inheritedFile opens the first of exec.Cmd's ExtraFiles in the child. Not
	// /dev/fd, which a bare /dev lacks.
	inheritedFile = "/proc/self/fd/3"

	defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// defaultNetworking is TUN where this process can make a device.
func defaultNetworking() Networking {
	if _, err := os.Stat("/dev/net/tun"); err == nil && os.Geteuid() == 0 {
		return TUN
	}
	return Userspace
}
