package tailnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// upTry bounds one run of `tailscale up`.
const upTry = 40 * time.Second

// refusals are what `tailscale up` writes when trying again can't help, in the
// order in which they are looked for. Source: cmd/tailscale/cli/up.go,
// feature/oauthkey, and the answers of the control server.
var refusals = []struct {
	text string // lower case
	err  error
	hint string
}{
	{"requested tags", ErrTagsRefused, "the policy's tagOwners must let the key's owner use them, and an OAuth client must have them itself"},
	{"oauth authkeys require --advertise-tags", ErrTagsRefused, "nodes that join with an OAuth client need a tag: configure one"},
	{"to approve your machine", ErrNeedsApproval, "use a pre-approved key, or add ?preauthorized=true to the OAuth client's secret"},
	{"to authenticate, visit", ErrKeyRefused, "no key was given and this host is not logged in: configure one"},
	{"invalid key", ErrKeyRefused, hintKey},
	{"unable to validate api key", ErrKeyRefused, hintKey},
	{"oauth2: cannot fetch token", ErrKeyRefused, hintKey},
	{"api token invalid", ErrKeyRefused, hintKey},
	{"does not have enough permissions", ErrKeyRefused, "the OAuth client needs the scope auth_keys (write)"},
	{"access denied", ErrNotAllowed, "run this as root, or as tailscale's operator"},
}

const hintKey = "it may have expired, been revoked or been used up, or belong to another tailnet or login server"

// up logs this host in, again and again while the failure may pass.
func (j *joining) up(ctx context.Context) error {
	for pause := time.Second; ; pause = min(2*pause, 10*time.Second) {
		j.m.LoggedIn = true // from the first try on there may be a login to undo
		err := j.upOnce(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w; the last try: %w%s", context.Cause(ctx), err, j.health())
		}
		for _, final := range []error{ErrKeyRefused, ErrTagsRefused, ErrNeedsApproval, ErrNotAllowed, exec.ErrNotFound} {
			if errors.Is(err, final) {
				return err
			}
		}
		j.Log.Warn("tailscale up did not succeed and is tried again", "error", err, "pause", pause)
		if sleep(ctx, pause) != nil {
			return fmt.Errorf("%w; the last try: %w%s", context.Cause(ctx), err, j.health())
		}
	}
}

func (j *joining) upOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, upTry+5*time.Second)
	defer cancel()
	args := []string{}
	if j.Socket != "" {
		args = append(args, "--socket="+j.Socket)
	}
	args = append(args, "up", "--reset", "--timeout="+upTry.String())
	if j.Hostname != "" {
		args = append(args, "--hostname="+j.Hostname)
	}
	if len(j.Tags) > 0 {
		args = append(args, "--advertise-tags="+strings.Join(j.Tags, ","))
	}
	if j.LoginServer != "" {
		args = append(args, "--login-server="+j.LoginServer)
	}
	if j.SSH {
		args = append(args, "--ssh")
	}
	args = append(args, fmt.Sprintf("--accept-routes=%t", j.AcceptRoutes))
	if j.Operator != "" {
		args = append(args, "--operator="+j.Operator)
	}
	if j.AuthKey != "" {
		args = append(args, "--auth-key=file:"+inheritedFile)
	}

	cmd := exec.CommandContext(ctx, j.Tailscale, args...)
	cmd.Env = j.Env
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 2 * time.Second
	out := &output{refused: cancel}
	cmd.Stdout, cmd.Stderr = out, out
	if j.AuthKey != "" {
		pipe, err := secretPipe(j.AuthKey)
		if err != nil {
			return fmt.Errorf("hand the key to tailscale: %w", err)
		}
		defer pipe.Close()
		cmd.ExtraFiles = []*os.File{pipe} // inheritedFile
	}
	err := cmd.Run()
	text := j.AuthKey.scrub(out.String())
	if err == nil {
		return nil
	}
	if r := refusal(text); r >= 0 {
		return fmt.Errorf("%w: %s (tailscale says: %s)", refusals[r].err, refusals[r].hint, oneLine(text))
	}
	if text == "" {
		return fmt.Errorf("tailscale up: %w", err)
	}
	return fmt.Errorf("tailscale up: %w: %s", err, oneLine(text))
}

// health is what tailscaled holds against itself, for the report of a timeout.
func (j *joining) health() string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	st, err := j.status(ctx)
	if err != nil {
		return fmt.Sprintf("; tailscaled does not answer: %v", err)
	}
	hint := "; check that this host reaches the login server and the Internet over HTTPS"
	if len(st.Health) > 0 {
		hint = "; tailscaled reports: " + oneLine(strings.Join(st.Health, "; "))
	}
	return fmt.Sprintf("; tailscaled is in state %s%s", st.BackendState, j.AuthKey.scrub(hint))
}

// secretPipe returns the read end of a pipe that holds the secret and nothing
// else will ever be written to. A key is far smaller than a pipe's buffer.
func secretPipe(s Secret) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	_, err = w.WriteString(string(s))
	if err := errors.Join(err, w.Close()); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func refusal(text string) int {
	text = strings.ToLower(text)
	for i, r := range refusals {
		if strings.Contains(text, r.text) {
			return i
		}
	}
	return -1
}

// output collects what a program writes, within a bound, and gives up on the
// program when it says what waiting can't change.
type output struct {
	refused func()

	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

const outputLimit = 16 << 10

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf.Write(p[:min(len(p), outputLimit-o.buf.Len())])
	if refusal(o.buf.String()) >= 0 {
		o.refused()
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// oneLine makes a line of what was written on several, and not a long one.
func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	const limit = 600
	if len(text) > limit {
		text = text[:limit] + "..."
	}
	return strings.ToValidUTF8(text, "?")
}
