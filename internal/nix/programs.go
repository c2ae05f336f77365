package nix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// defaultProfile is where a multi-user installation keeps its programs, whoever asks.
const defaultProfile = "/nix/var/nix/profiles/default/bin"

// systemPath is searched after the caller's path: a daemon, and sudo, know less than a
// login shell does.
const systemPath = defaultProfile + ":/run/current-system/sw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Programs finds and runs the programs of this host's Nix. The zero value is ready.
type Programs struct {
	// Path is searched for programs, in the form of PATH, before the places where Nix is
	// usually installed.
	Path string
	// Dir is where builds need disk. If empty, /nix.
	Dir string
}

func (p Programs) path() string {
	if p.Path == "" {
		return systemPath
	}
	return p.Path + ":" + systemPath
}

// find gives the absolute path of a program.
func (p Programs) find(name string) (string, error) {
	for _, dir := range filepath.SplitList(p.path()) {
		if path := filepath.Join(dir, name); filepath.IsAbs(dir) && executable(path) {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed: looked in %s", name, p.path())
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// StoreProgram gives the absolute path of this host's nix-daemon.
func (p Programs) StoreProgram() (string, error) {
	nix, err := p.find("nix")
	if err != nil {
		return "", err
	}
	return p.storeProgram(nix)
}

// storeProgram gives the absolute path of nix-daemon: that of the default profile, which
// no garbage collection or user changes, else the one beside nix, else any.
func (p Programs) storeProgram(nix string) (string, error) {
	for _, dir := range []string{defaultProfile, filepath.Dir(nix)} {
		if path := filepath.Join(dir, "nix-daemon"); executable(path) && programRule.MatchString(path) {
			return path, nil
		}
	}
	path, err := p.find("nix-daemon")
	if err == nil && !programRule.MatchString(path) {
		err = fmt.Errorf("%q can't be named in a store's URI: use a path of letters, digits and ._+-", path)
	}
	return path, err
}

// Environment is what Nix's programs get: root's home if we are root, as the daemon and
// what sshd starts have it, and else no user's settings at all. NIX_CONFIG and its kin are
// left out on purpose.
func (p Programs) Environment() ([]string, error) {
	u, err := user.Current()
	if err != nil {
		return nil, fmt.Errorf("look up the current user: %w", err)
	}
	env := []string{"PATH=" + p.path(), "HOME=" + u.HomeDir, "USER=" + u.Username, "LOGNAME=" + u.Username, "LC_ALL=C", "TERM=dumb"}
	if os.Geteuid() != 0 {
		env = append(env, "NIX_USER_CONF_FILES=")
	}
	return env, nil
}

// killGrace is how long a program may take to end after it was told to.
const killGrace = 2 * time.Second

// runError is a program that did not do what it was asked.
type runError struct {
	stderr string
	err    error
}

func (e *runError) Error() string {
	text := condense(e.stderr)
	if _, exited := errors.AsType[*exec.ExitError](e.err); text != "" && exited {
		return text // that it failed says less than what it said
	}
	if text != "" {
		return e.err.Error() + "; " + text
	}
	return e.err.Error()
}

func (e *runError) Unwrap() error { return e.err }

// run runs nix with args and gives its standard output. When ctx ends it ends the program
// with all that it started: an ssh left behind would hold the output open.
func (p Programs) run(ctx context.Context, args ...string) ([]byte, error) {
	nix, err := p.find("nix")
	if err != nil {
		return nil, err
	}
	env, err := p.Environment()
	if err != nil {
		return nil, err
	}
	var stdout, stderr limited
	cmd := exec.CommandContext(ctx, nix, append([]string{"--extra-experimental-features", "nix-command"}, args...)...)
	cmd.Dir, cmd.Env = "/", env
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = killGrace
	err = cmd.Run()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err == nil && stdout.full {
		err = errors.New("its output is too long")
	}
	if err != nil {
		return nil, &runError{stderr: stderr.buf.String(), err: err}
	}
	return stdout.buf.Bytes(), nil
}

// limited keeps the first 4 MiB that are written to it, and takes the rest in silence.
type limited struct {
	buf  bytes.Buffer // not embedded: its ReadFrom would have no limit
	full bool
}

func (l *limited) Write(p []byte) (int, error) {
	keep := min(len(p), 4<<20-l.buf.Len())
	l.full = l.full || keep < len(p)
	l.buf.Write(p[:keep])
	return len(p), nil
}

// condense gives the few lines of a program's standard error that say why it failed, as
// one line: errors, without warnings, traces and ssh's frames of @.
func condense(stderr string) string {
	const lines, bytes = 3, 400
	var kept []string
	for line := range strings.Lines(stderr) {
		line = strings.TrimSpace(strings.Map(printable, line))
		switch {
		case line == "", strings.HasPrefix(line, "warning:"), strings.HasPrefix(line, "@@@"), strings.HasPrefix(line, "Warning: Permanently added"):
			continue
		}
		kept = append(kept, strings.TrimSuffix(strings.TrimPrefix(line, "error: "), "."))
	}
	text := strings.Join(kept[max(0, len(kept)-lines):], "; ")
	if len(text) > bytes {
		text = "…" + strings.ToValidUTF8(text[len(text)-bytes:], "")
	}
	return text
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return ' '
	}
	return r
}
