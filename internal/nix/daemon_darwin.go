package nix

import (
	"context"
	"fmt"
)

// launchdLabels are the daemon's names with launchd, of Nix's installer and of Determinate's.
var launchdLabels = [...]string{"org.nixos.nix-daemon", "systems.determinate.nix-daemon"}

// restart restarts the daemon and says who did.
func (d Daemon) restart(ctx context.Context) (by string, err error) {
	for _, label := range launchdLabels {
		service := "system/" + label
		if d.service(ctx, "launchctl", "print", service) == nil {
			return "launchd", d.service(ctx, "launchctl", "kickstart", "-k", service)
		}
	}
	return "", fmt.Errorf("launchd knows none of %v; restart what listens on %s by hand", launchdLabels, d.socket())
}
