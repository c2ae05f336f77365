package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	keyVar         = prefix + "_AUTH_KEY"
	keyFileVar     = prefix + "_AUTH_KEY_FILE"
	webhookVar     = prefix + "_WEBHOOK_SECRET"
	webhookFileVar = prefix + "_WEBHOOK_SECRET_FILE"
)

// secrets are what a command needs that nobody else may see. They travel from process to
// process by pipes and sockets only, see [handover].
type secrets struct {
	AuthKey       string `json:"auth_key,omitempty"`
	IDToken       string `json:"id_token,omitempty"` // of the workload, in place of a key
	WebhookSecret string `json:"webhook_secret,omitempty"`
}

func (secrets) String() string   { return "[secrets]" }
func (secrets) GoString() string { return "[secrets]" }

// A need says which secrets a command takes.
type need struct {
	front   bool // a process of root's follows: files that only root can read are left to it
	login   bool // this host is to log in to the tailnet
	webhook bool // events are to be signed
}

// takeSecrets fills a.secrets from where the settings say, unless another process handed
// them over. Afterwards neither this process nor what it starts has them in the
// environment. It may replace this process by one of the same number, see hideSecrets.
func (a *app) takeSecrets(ctx context.Context, n need) error {
	t, c := &a.set.Tailnet, &a.set.Coordinator
	if t.AuthKey != "" || c.WebhookSecret != "" {
		return a.hideSecrets() // which goes on below
	}
	var err error
	if a.secrets.AuthKey == "" {
		if a.secrets.AuthKey, err = readSecret(&t.AuthKeyFile, keyFileVar, n.front); err != nil {
			return err
		}
		a.mask(a.secrets.AuthKey)
		if bare, _, attributes := strings.Cut(a.secrets.AuthKey, "?"); attributes {
			a.mask(bare)
		}
	}
	if !n.webhook {
		// One environment may serve a whole cluster: this file may not even be here.
		if err := forgetSecret(&c.WebhookSecretFile, webhookFileVar); err != nil {
			return err
		}
	} else if a.secrets.WebhookSecret == "" {
		if a.secrets.WebhookSecret, err = readSecret(&c.WebhookSecretFile, webhookFileVar, n.front); err != nil {
			return err
		}
		a.mask(a.secrets.WebhookSecret)
	}
	if t.ClientID == "" || !n.login || a.behindFront {
		return nil // the front fetches tokens: they are for the job's user
	}
	a.secrets.IDToken, err = a.fetchIDToken(ctx)
	return err
}

// readSecret reads a secret's file and forgets the file's name. With a front, a file that
// is only root's is left to the process behind it.
func readSecret(file *string, name string, front bool) (string, error) {
	if *file == "" {
		return "", nil
	}
	b, err := reveal("", *file)
	if front && errors.Is(err, fs.ErrPermission) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return string(b), forgetSecret(file, name)
}

// forgetSecret forgets the name of a secret's file.
func forgetSecret(file *string, name string) error {
	// A descriptor that we were handed for it must not go on to children.
	if n, ok := strings.CutPrefix(*file, fdDir+"/"); ok {
		if fd, err := strconv.Atoi(n); err == nil && fd > 2 {
			_ = unix.Close(fd) // it served
		}
	}
	*file = ""
	return os.Unsetenv(name)
}

const fdDir = "/dev/fd"

// hideSecrets runs the program anew as the same process, with each secret in a pipe
// instead of the environment: the system shows the environment that a process was started
// with for as long as it runs, whatever the process does to its own copy, and a builder
// runs for hours. It returns only on an error.
func (a *app) hideSecrets() (err error) {
	defer func() {
		err = fmt.Errorf("hide the secrets: %w", err)
	}()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	hidden := map[string]bool{}
	var env []string
	for _, s := range []struct {
		value         secret
		name, fileVar string
	}{{a.set.Tailnet.AuthKey, keyVar, keyFileVar}, {a.set.Coordinator.WebhookSecret, webhookVar, webhookFileVar}} {
		if s.value == "" {
			continue
		}
		pipe, err := pipeOf(string(s.value))
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		defer pipe.Close()
		fd := int(pipe.Fd())
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return err
		}
		env = append(env, s.fileVar+"="+filepath.Join(fdDir, strconv.Itoa(fd)))
		hidden[s.name], hidden[s.fileVar] = true, true
	}
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); !hidden[name] {
			env = append(env, kv)
		}
	}
	return syscall.Exec(self, os.Args, env)
}

// pipeOf returns the read end of a pipe that holds the secret, and nothing else will ever
// be written to.
func pipeOf(secret string) (*os.File, error) {
	// More would not fit into the pipe before somebody reads.
	if len(secret) > 4096 {
		return nil, errors.New("longer than 4096 bytes")
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	_, err = w.WriteString(secret)
	if err := errors.Join(err, w.Close()); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// mask has GitHub's runner hide the secret wherever it comes up in the job's log.
func (a *app) mask(secret string) {
	if a.step != nil {
		a.step.log.Mask(secret)
	}
}
