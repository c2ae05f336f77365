package testbed

import (
	"fmt"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/image"
)

// DefaultDir is where labs live. It must be on a file system that can carry an
// overlay and a Nix store, which a tmpfs of a CI machine often is too small for.
const DefaultDir = "/var/tmp/nix-builders-lab"

// Coordinator is the name of the host that every lab has.
const Coordinator = "coordinator"

// Builder returns the name of the i-th builder host, counted from 1.
func Builder(i int) string { return fmt.Sprintf("builder-%d", i) }

// Config says what lab to make.
type Config struct {
	// Name tells labs apart. If empty, "default". Letters, digits and dashes.
	Name string
	// Dir is the directory of all labs. If empty, [DefaultDir].
	Dir string
	// Builders is how many hosts there are beside the coordinator.
	Builders int
	// NixConf is appended to the nix.conf of the named hosts; see [HostSpec].
	NixConf map[string]string
	// StoreSize bounds the /nix of the named hosts, in bytes; see [HostSpec].
	StoreSize map[string]int64
	// Delay is what the cables of the named hosts add each way; see [Host.Delay].
	Delay map[string]time.Duration
	// Systemd makes hosts pass for machines that systemd runs, as far as the
	// service of the Nix daemon goes.
	Systemd bool
	// Shared makes a directory, [Lab.Shared], that every host sees under the name
	// it has outside.
	Shared bool
	// Suite is the Debian suite that hosts are made from, which decides the
	// version of Nix. If empty, [image.Trixie].
	Suite string
	// Mirror is where an image is made from, if it has to be. If empty, this
	// machine's own apt knows.
	Mirror string
	// Cache holds images and programs. If its Dir is empty, [image.DefaultDir].
	Cache image.Cache
	// Module is the root directory of the module whose programs the hosts get.
	// If empty, it is looked for from the current directory upwards.
	Module string
	// Programs are the commands that hosts find in /usr/local/bin, as directories
	// of the module. If nil, the project's own: [Programs].
	Programs []string
	// Control configures the control server; its addresses are the lab's.
	Control ControlConfig
	// Logf hears what takes time. If nil, nobody does.
	Logf func(format string, args ...any)
}

// Programs are the project's own programs and more, as [Config] has them.
func Programs(more ...string) []string {
	return append([]string{"./cmd/nix-builders", "./cmd/nix-builders-hook"}, more...)
}

// ControlConfig is the part of [control.Config] that a lab lets one choose.
type ControlConfig struct {
	Policy         *control.Policy   // if nil, control's default
	AuthKeys       []control.AuthKey // if nil, control's default
	EphemeralAfter time.Duration     // if 0, control's default
	KeepAlive      time.Duration     // if 0, control's default
}
