package testbed

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// hostPath is where a host looks for programs.
const hostPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// HostSpec says what is special about a host.
type HostSpec struct {
	// Name is the host's name. It must not be empty.
	Name string
	// NixConf is appended to /etc/nix/nix.conf, line by line: for example
	// "extra-platforms = aarch64-linux" for a host that passes for another
	// architecture's.
	NixConf string
	// StoreSize, if not 0, makes /nix a file system of its own with room for so many
	// bytes, which a test can fill. It is in memory: a restart empties it.
	StoreSize int64
	// Delay is what the host's cable adds each way; see [Host.Delay].
	Delay time.Duration
	// Fresh makes the host a machine as a CI service hands it out: systemd runs
	// it, and there is neither Nix on it nor any of the lab's programs. What an
	// installer of Nix would fetch is in [NixBin]; the host's systemctl starts the
	// daemon once it lies in [NixProfile].
	Fresh bool
	// Files are written to the host's disk before it boots, over what the lab
	// itself writes there, by their path without the slash at its beginning.
	Files map[string]string
}

// Where a fresh host has Nix's programs before somebody installs them, and where
// an installer puts them.
const (
	NixBin     = "/opt/lab/nix-bin"
	NixProfile = "/nix/var/nix/profiles/default/bin"
)

// Host is one machine of a lab. Its methods may be called from any goroutine;
// they fail with the host's name if it is dead.
type Host struct {
	lab  *Lab
	dir  string
	info hostInfo
}

// hostInfo is what host.json holds, for [Open] and for the host's first process.
type hostInfo struct {
	Name  string `json:"name"`
	Index int    `json:"index"` // its place in the network
	Root  string `json:"root"`  // the image's root file system
	Bin   string `json:"bin"`   // the programs, on the outside
	// Systemd says that systemd's directory is in /run.
	Systemd bool `json:"systemd,omitempty"`
	Fresh   bool `json:"fresh,omitempty"`
	// StoreSize, if not 0, is how many bytes /nix holds.
	StoreSize int64 `json:"store_size,omitempty"`
	// Shared is the directory that all hosts see under the name it has outside.
	Shared string `json:"shared,omitempty"`
}

// Name returns the host's name.
func (h *Host) Name() string { return h.info.Name }

// IP is the host's address on the lab's switch, which stands for the Internet;
// the tailnet's addresses are tailscaled's business.
func (h *Host) IP() netip.Addr { return address(h.info.Index) }

// Disk is the directory, on the outside, of the files by which the host's disk
// differs from the image's, apart from /nix and what is mounted.
func (h *Host) Disk() string { return filepath.Join(h.dir, "upper") }

// Alive reports whether the host runs. A host that is cut off does.
func (h *Host) Alive() bool {
	pid, err := h.pid()
	return err == nil && pid != 0
}

// pid returns the first process of the host, 0 if it is dead.
func (h *Host) pid() (int, error) { return h.lab.find(roleHost, h.dir) }

func (l *Lab) boot(ctx context.Context, spec HostSpec, index int) (*Host, error) {
	if !nameRE.MatchString(spec.Name) {
		return nil, fmt.Errorf("host name %q: want at most 32 lower-case letters, digits and dashes", spec.Name)
	}
	if index > lastIndex {
		return nil, fmt.Errorf("boot %s: a lab has room for %d hosts", spec.Name, lastIndex-9)
	}
	h := &Host{lab: l, dir: filepath.Join(l.dir, "hosts", spec.Name), info: hostInfo{
		Name: spec.Name, Index: index, Root: l.info.Root, Bin: filepath.Join(l.dir, "bin"),
		Systemd: l.info.Systemd || spec.Fresh, Fresh: spec.Fresh, StoreSize: spec.StoreSize,
	}}
	if l.info.Shared {
		h.info.Shared = l.Shared()
	}
	if err := h.makeDisk(spec); err != nil {
		return nil, fmt.Errorf("boot %s: %w", spec.Name, err)
	}
	if err := h.start(ctx); err != nil {
		return nil, fmt.Errorf("boot %s: %w", spec.Name, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hosts[spec.Name] = h
	return h, nil
}

// makeDisk writes what differs from the image into the host's own layer.
func (h *Host) makeDisk(spec HostSpec) error {
	upper := filepath.Join(h.dir, "upper")
	type file struct{ name, text string }
	files := []file{
		{"etc/hostname", spec.Name + "\n"},
		{"etc/hosts", "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 " + spec.Name + "\n"},
		// Nobody answers there, and says so at once.
		{"etc/resolv.conf", "nameserver " + address(controlIndex).String() + "\noptions timeout:1 attempts:1\n"},
	}
	if !spec.Fresh {
		files = append(files, file{"etc/nix/nix.conf", nixConf + spec.NixConf + "\n"})
	}
	for name, text := range spec.Files {
		files = append(files, file{name, text})
	}
	for _, f := range files {
		name := filepath.Join(upper, f.name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, []byte(f.text), 0o644); err != nil {
			return err
		}
	}
	for _, d := range []string{"work", "root", "nix"} {
		if err := os.MkdirAll(filepath.Join(h.dir, d), 0o755); err != nil {
			return err
		}
	}
	bin := filepath.Join(upper, "usr/local/bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	if h.info.Fresh {
		if err := h.hideNix(upper); err != nil {
			return err
		}
	} else if err := h.linkPrograms(bin); err != nil {
		return err
	}
	if h.info.Systemd {
		if err := os.WriteFile(filepath.Join(bin, "systemctl"), []byte(systemctl), 0o755); err != nil {
			return err
		}
	}
	if spec.Delay > 0 {
		if err := os.WriteFile(h.delayFile(), []byte(spec.Delay.String()), 0o644); err != nil {
			return err
		}
	}
	return writeJSON(filepath.Join(h.dir, "host.json"), h.info)
}

// linkPrograms puts the lab's programs where a host looks for them.
func (h *Host) linkPrograms(bin string) error {
	entries, err := os.ReadDir(h.info.Bin)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == labProgram {
			continue // the host's own business
		}
		if err := os.Symlink(filepath.Join(hostBin, e.Name()), filepath.Join(bin, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// systemctl stands in for systemd on hosts that pass for run by it.
//
//go:embed systemctl.sh
var systemctl string

// nixConf is a multi-user Nix as an installer leaves it, without the Internet.
// The sandbox hides the name of the host, which tests want to see: it is shown
// there in a file.
const nixConf = `experimental-features = nix-command flakes
build-users-group = nixbld
trusted-users = root
sandbox = true
sandbox-paths = /lab/hostname=/etc/hostname
substituters =
`

// Remove throws the host away, as a CI service does with a machine whose job is
// over: nothing of it stays, and its name and its place are free again.
func (h *Host) Remove(ctx context.Context) error {
	if err := h.Kill(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(h.dir); err != nil {
		return fmt.Errorf("remove %s: %w", h.Name(), err)
	}
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	delete(h.lab.hosts, h.Name())
	return nil
}

// Kill ends the host at once, as kill -9 of everything on it: its peers see
// their connections to its processes end. [Host.Cut] it first for a power cut,
// of which they see nothing. The disk stays for [Host.Restart]. It is
// idempotent.
func (h *Host) Kill(ctx context.Context) error {
	if err := killMembers(ctx, h.lab.dir, h.dir); err != nil {
		return fmt.Errorf("kill %s: %w", h.Name(), err)
	}
	// The kernel takes the cable away some time after the host, too late for a
	// restart. It may have done so already.
	if sw, err := h.lab.find(roleSwitch, h.lab.dir); err == nil && sw != 0 {
		_, _ = ipBatch(ctx, sw, "link del "+port(h.info.Index))
	}
	return nil
}

// Restart boots the host again with the disk it has, after killing it if it
// runs. Its cable is in again.
func (h *Host) Restart(ctx context.Context) error {
	if err := h.Kill(ctx); err != nil {
		return err
	}
	if err := h.start(ctx); err != nil {
		return fmt.Errorf("restart %s: %w", h.Name(), err)
	}
	return nil
}

// Process is a process on a host.
type Process struct {
	PID     int // as the host sees it
	Outside int // as this machine sees it
	Argv    []string
}

func (p Process) String() string { return fmt.Sprintf("%d %s", p.PID, strings.Join(p.Argv, " ")) }

// Processes lists what runs on the host beside its first process, in the order
// of their numbers.
func (h *Host) Processes() ([]Process, error) {
	pid, err := h.pid()
	if err != nil || pid == 0 {
		return nil, errors.Join(h.dead(), err)
	}
	space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		return nil, err
	}
	var list []Process
	_, err = processes(func(p process) bool {
		if s, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", p.pid)); err != nil || s != space || p.pid == pid {
			return false
		}
		list = append(list, Process{PID: innerPID(p.pid), Outside: p.pid, Argv: p.argv})
		return true
	})
	slices.SortFunc(list, func(a, b Process) int { return cmp.Compare(a.PID, b.PID) })
	return list, err
}

// innerPID returns the number that the process has in its own namespace.
func innerPID(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
			f := strings.Fields(rest)
			var n int
			fmt.Sscan(f[len(f)-1], &n)
			return n
		}
	}
	return 0
}

func (h *Host) dead() error {
	return fmt.Errorf("host %s of lab %s is not running", h.Name(), h.lab.name)
}
