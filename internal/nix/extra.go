package nix

import (
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
	env, err := p.Environment()
	if err != nil {
		return nil, err
	}
	env = append(env, "NIX_CONFIG="+lines)
	ctx, cancel := context.WithTimeoutCause(ctx, confBound, fmt.Errorf("no answer within %v", confBound))
	defer cancel()
	stderr, err := showConf(ctx, nix, dir, env, "config", "show")
	if err != nil && ctx.Err() == nil {
		// Before 2.20 the command had another name. What is wrong with the lines is wrong
		// with either.
		if text, older := showConf(ctx, nix, dir, env, "show-config"); older == nil {
			stderr, err = text, nil
		}
	}
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(stderr) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "warning: "); ok && !strings.Contains(text, "show-config") {
			warnings = append(warnings, text)
		}
	}
	return warnings, nil
}

// showConf has Nix read its configuration, and returns what it had to say about that.
func showConf(ctx context.Context, nix, dir string, env []string, command ...string) (string, error) {
	var stderr limited
	cmd := exec.CommandContext(ctx, nix, append([]string{"--extra-experimental-features", "nix-command"}, command...)...)
	cmd.Dir, cmd.Env = dir, env
	cmd.Stderr = &stderr
	cmd.WaitDelay = killGrace
	err := cmd.Run()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	text := stderr.buf.String()
	if err != nil {
		return "", &runError{stderr: text, err: err}
	}
	return text, nil
}
