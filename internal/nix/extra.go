package nix

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// confBound is what Nix may take to read a few lines.
const confBound = 20 * time.Second

// CheckConf has this host's Nix read lines of nix.conf behind those it has. What it can't
// read, or a value that can't be, is the error, in Nix's own words; what it only warns of
// is returned. Files that the lines include are looked for from dir.
func (p Programs) CheckConf(ctx context.Context, lines, dir string) (warnings []string, err error) {
	nix, err := p.find("nix")
	if err != nil {
		return nil, err
	}
	env, err := p.environment()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, confBound, fmt.Errorf("no answer within %v", confBound))
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, nix, "--extra-experimental-features", "nix-command", "config", "show")
	cmd.Dir, cmd.Env = dir, append(env, "NIX_CONFIG="+lines)
	cmd.Stderr = &stderr
	cmd.WaitDelay = killGrace
	if err = cmd.Run(); ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, &runError{stderr: stderr.String(), err: err}
	}
	for line := range strings.Lines(stderr.String()) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "warning: "); ok {
			warnings = append(warnings, text)
		}
	}
	return warnings, nil
}
