package nix

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	kvmDevice        = "/dev/kvm"
	kvmGetAPIVersion = 0xAE00 // KVM_GET_API_VERSION
	kvmAPIVersion    = 12     // the only one there is since 2007
)

// probeKVM says why builds of the users in group can't use KVM, nil if they can. A device
// that exists proves little: runners have it without nested virtualisation behind it.
func probeKVM(group string) error {
	f, err := os.OpenFile(kvmDevice, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	version, err := unix.IoctlRetInt(int(f.Fd()), kvmGetAPIVersion)
	if err != nil {
		return fmt.Errorf("ask %s its version: %w", kvmDevice, err)
	}
	if version != kvmAPIVersion {
		return fmt.Errorf("%s has version %d, want %d", kvmDevice, version, kvmAPIVersion)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	users, err := readBuildUsers(group)
	if err != nil {
		return err
	}
	if !users.mayUse(st.Mode, st.Gid) {
		return errors.New(kvmDevice + " is closed to the build users: make it readable and writable for them, for example by mode 0666")
	}
	return nil
}
