package testbed

import (
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// isolate gives the command the namespaces of its role, and a session, so that
// nothing that happens to this process's terminal reaches it.
func isolate(cmd *exec.Cmd, r role) {
	var flags uintptr
	switch r {
	case roleSwitch, roleControl:
		flags = unix.CLONE_NEWNET
	case roleHost:
		flags = unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Setsid: true}
}

// runHost is the first process of a host: it makes the host's view of the
// world, keeps its nix-daemon running and buries its dead. Its end is the end of
// the host.
func runHost(dir string, ready func()) error {
	// A host is not to be ended from inside.
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	var info hostInfo
	if err := readJSON(filepath.Join(dir, "host.json"), &info); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(info.Name)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := mountAll(dir, info); err != nil {
		return err
	}
	if err := pivot(filepath.Join(dir, "root")); err != nil {
		return err
	}
	if info.Fresh {
		awaitInstaller(ready)
		return superviseNix(NixProfile, func() {})
	}
	return superviseNix("/usr/bin", ready)
}

// hostBin is where a host sees the lab's programs.
const hostBin = "/opt/lab/bin"

// mountAll puts the host's root file system together below dir/root.
func mountAll(dir string, info hostInfo) error {
	// From here on no mount is seen outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	at := func(name string) string { return filepath.Join(dir, "root", name) }
	layers := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", info.Root, filepath.Join(dir, "upper"), filepath.Join(dir, "work"))
	type mount struct {
		source, target, fstype string
		flags                  uintptr
		options                string
	}
	// The store can't lie on an overlay: Nix wants a plain file system.
	store := mount{filepath.Join(dir, "nix"), at("nix"), "", unix.MS_BIND, ""}
	if info.StoreSize > 0 {
		store = mount{"tmpfs", at("nix"), "tmpfs", unix.MS_NODEV, fmt.Sprintf("mode=755,size=%d", info.StoreSize)}
	}
	mounts := []mount{
		{"overlay", at(""), "overlay", 0, layers},
		store,
		{"proc", at("proc"), "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"sysfs", at("sys"), "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"tmpfs", at("run"), "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"},
		{"tmpfs", at("dev"), "tmpfs", unix.MS_NOSUID, "mode=755"},
	}
	for _, m := range mounts {
		if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.options); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	if err := bindReadOnly(info.Bin, at(hostBin)); err != nil {
		return err
	}
	if info.Fresh {
		if err := bindReadOnly(filepath.Join(info.Root, "usr/bin"), at(NixBin)); err != nil {
			return err
		}
	}
	if info.Shared != "" {
		if err := os.MkdirAll(at(info.Shared), 0o755); err != nil {
			return err
		}
		if err := unix.Mount(info.Shared, at(info.Shared), "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", info.Shared, err)
		}
	}
	if info.Systemd { // by which programs tell that systemd runs
		if err := os.MkdirAll(at("run/systemd/system"), 0o755); err != nil {
			return err
		}
	}
	return makeDev(at("dev"))
}

// hideNix takes Nix's programs out of the host's own layer.
func (h *Host) hideNix(upper string) error {
	names, err := filepath.Glob(filepath.Join(h.info.Root, "usr/bin/nix*"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(upper, "usr/bin"), 0o755); err != nil {
		return err
	}
	for _, name := range names {
		// To an overlay, such a device is a file that was deleted.
		if err := unix.Mknod(filepath.Join(upper, "usr/bin", filepath.Base(name)), unix.S_IFCHR, 0); err != nil {
			return fmt.Errorf("hide %s: %w", name, err)
		}
	}
	return nil
}

func bindReadOnly(source, target string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount %s read-only: %w", target, err)
	}
	return nil
}

// makeDev fills /dev with what programs expect, and with what of this machine a
// runner would have too.
func makeDev(dev string) error {
	for _, d := range []string{"pts", "shm", "net"} {
		if err := os.Mkdir(filepath.Join(dev, d), 0o755); err != nil {
			return err
		}
	}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty", "net/tun", "kvm"} {
		if _, err := os.Stat("/dev/" + name); errors.Is(err, os.ErrNotExist) {
			continue
		}
		target := filepath.Join(dev, name)
		if err := os.WriteFile(target, nil, 0o666); err != nil {
			return err
		}
		if err := unix.Mount("/dev/"+name, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount /dev/%s: %w", name, err)
		}
	}
	for link, to := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx",
	} {
		if err := os.Symlink(to, filepath.Join(dev, link)); err != nil {
			return err
		}
	}
	if err := unix.Mount("devpts", filepath.Join(dev, "pts"), "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620"); err != nil {
		return fmt.Errorf("mount /dev/pts: %w", err)
	}
	if err := unix.Mount("tmpfs", filepath.Join(dev, "shm"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"); err != nil {
		return fmt.Errorf("mount /dev/shm: %w", err)
	}
	return nil
}

// pivot makes root the root directory, and this machine's unreachable.
func pivot(root string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	// The old root lands on top of the new one, from where it is taken off.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	return os.Chdir("/")
}

const (
	nixDaemonPID = "/run/nix-daemon.pid"
	nixSocket    = "/nix/var/nix/daemon-socket/socket"
)

// awaitInstaller collects the orphans of a fresh host until its systemctl tells
// it, by SIGUSR1, to start Nix.
func awaitInstaller(ready func()) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGUSR1, unix.SIGCHLD)
	defer signal.Stop(signals)
	ready()
	for s := range signals {
		for { // one SIGCHLD may stand for several children
			if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != nil || pid <= 0 {
				break
			}
		}
		if s == unix.SIGUSR1 {
			return
		}
	}
}

// superviseNix starts the nix-daemon of the directory bin, and again whenever it
// ends, and collects every orphan of the host. It returns only if it can't go on.
func superviseNix(bin string, ready func()) error {
	out, err := os.OpenFile("/var/log/nix-daemon.log", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	os.Remove(nixSocket) // from before a restart
	daemon, started, err := startNix(bin, out)
	if err != nil {
		return err
	}
	go func() { // ends when the daemon listens
		for !listening(nixSocket) {
			time.Sleep(2 * time.Millisecond)
		}
		ready()
	}()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("wait for processes: %w", err)
		case pid != daemon:
			continue
		}
		log.Printf("nix-daemon ended (%d): starting it again", status)
		if time.Since(started) < time.Second {
			time.Sleep(200 * time.Millisecond) // it ends as soon as it starts
		}
		if daemon, started, err = startNix(bin, out); err != nil {
			return err
		}
	}
}

// listening reports whether somebody accepts connections on the unix socket. To
// try would make the daemon start a process for us.
func listening(socket string) bool {
	table, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(table)) {
		// Num RefCount Protocol Flags Type St Inode Path
		f := strings.Fields(line)
		if len(f) == 8 && f[7] == socket && f[3] == "00010000" {
			return true
		}
	}
	return false
}

// startNix starts the daemon in a session of its own. It is not [exec.Cmd]'s to
// wait for: only the supervisor waits.
func startNix(bin string, out *os.File) (pid int, started time.Time, err error) {
	started = time.Now()
	null, err := os.Open("/dev/null")
	if err != nil {
		return 0, started, err
	}
	defer null.Close()
	pid, err = syscall.ForkExec(filepath.Join(bin, "nix-daemon"), []string{"nix-daemon"}, &syscall.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=" + hostPath, "HOME=/root", "USER=root"},
		Files: []uintptr{null.Fd(), out.Fd(), out.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, started, fmt.Errorf("start nix-daemon: %w", err)
	}
	return pid, started, os.WriteFile(nixDaemonPID, fmt.Appendln(nil, pid), 0o644)
}
