package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/tailnet"
)

const (
	keyVar     = prefix + "_AUTH_KEY"
	keyFileVar = prefix + "_AUTH_KEY_FILE"
)

// authKey takes the key to the tailnet from where the settings say. Afterwards neither
// this process nor what it starts has it in the environment.
func (t *tailnetSettings) authKey() (tailnet.Secret, error) {
	if t.AuthKey != "" {
		return "", hideKey(t.AuthKey) // which goes on in the branch below
	}
	key, err := reveal("", t.AuthKeyFile)
	if err != nil {
		return "", err
	}
	// A descriptor that we were handed for the key must not go on to children.
	if n, ok := strings.CutPrefix(t.AuthKeyFile, fdDir+"/"); ok {
		if fd, err := strconv.Atoi(n); err == nil && fd > 2 {
			_ = unix.Close(fd) // it served
		}
	}
	if err := errors.Join(os.Unsetenv(keyVar), os.Unsetenv(keyFileVar)); err != nil {
		return "", fmt.Errorf("forget the auth key: %w", err)
	}
	return tailnet.Secret(key), nil
}

const fdDir = "/dev/fd"

// hideKey runs the program anew as the same process, with the key in a pipe instead of the
// environment: the system shows the environment that a process was started with for as
// long as it runs, whatever the process does to its own copy, and a builder runs for
// hours. It returns only on an error.
func hideKey(key secret) error {
	// More would not fit into the pipe before somebody reads.
	if len(key) > 4096 {
		return fmt.Errorf("%s is longer than 4096 bytes", keyVar)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("hide the auth key: %w", err)
	}
	defer r.Close()
	_, err = w.WriteString(string(key))
	if err := errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("hide the auth key: %w", err)
	}
	fd := int(r.Fd())
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
		return fmt.Errorf("hide the auth key: %w", err)
	}
	env := []string{keyFileVar + "=" + filepath.Join(fdDir, strconv.Itoa(fd))}
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); name != keyVar && name != keyFileVar {
			env = append(env, kv)
		}
	}
	return fmt.Errorf("hide the auth key: %w", syscall.Exec(self, os.Args, env))
}
