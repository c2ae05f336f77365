package tailnet

const (
	// inheritedFile opens the first of exec.Cmd's ExtraFiles in the child.
	inheritedFile = "/dev/fd/3"

	defaultPath = "/usr/local/bin:/opt/homebrew/bin:/usr/bin:/bin:/usr/sbin:/sbin"
)

// defaultNetworking leaves the host alone: tailscaled's handling of DNS on macOS
// breaks jobs (tailscale/github-action#315).
func defaultNetworking() Networking { return Userspace }
