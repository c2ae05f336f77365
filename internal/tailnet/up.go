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

// up logs this host in, again and again while the failure may pass.
func (j *joining) up(ctx context.Context) error {
	if j.ClientID != "" && j.IDToken == "" {
		return errors.New("a client id is given, but no identity token of this job: the job needs `permissions:` with `id-token: write`")
	}
	j.m.LoggedIn = true // from the first try on there may be a login to undo
	if err := j.began(); err != nil {
		return err
	}
	for pause := time.Second; ; pause = min(2*pause, 10*time.Second) {
		err := j.upOnce(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w; the last try: %w%s", context.Cause(ctx), err, j.health())
		}
		for _, final := range []error{ErrKeyRefused, ErrTagsRefused, ErrNeedsApproval, ErrNotAllowed, ErrTooOld, exec.ErrNotFound} {
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
	secret := j.AuthKey // tailscale reads it from inheritedFile
	switch {
	case secret != "":
		args = append(args, "--auth-key=file:"+inheritedFile)
	case j.ClientID != "":
		secret = j.IDToken
		args = append(args, "--client-id="+j.ClientID, "--id-token=file:"+inheritedFile)
	}

	cmd := exec.CommandContext(ctx, j.Tailscale, args...)
	cmd.Env = j.Env
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 2 * time.Second
	out := &output{refused: cancel}
	cmd.Stdout, cmd.Stderr = out, out
	if secret != "" {
		pipe, err := secretPipe(secret)
		if err != nil {
			return fmt.Errorf("hand the key to tailscale: %w", err)
		}
		defer pipe.Close()
		cmd.ExtraFiles = []*os.File{pipe} // inheritedFile
	}
	err := cmd.Run()
	text := j.scrub(out.String())
	if err == nil {
		return nil
	}
	if r := refused(text); r != nil {
		hint := r.hint
		switch {
		case hint == "":
			hint = tokenRefused(j.IDToken, time.Now())
		case secret == "" && r.err == ErrKeyRefused:
			hint = hintNoKey
		}
		return fmt.Errorf("%w: %s (tailscale says: %s)", r.err, hint, oneLine(text))
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
	return fmt.Sprintf("; tailscaled is in state %s%s", st.BackendState, j.scrub(hint))
}

// secretPipe returns the read end of a pipe that holds the secret and nothing
// else will ever be written to. What parseCredentials lets pass is smaller than a pipe's
// buffer, so that nobody has to read yet.
func secretPipe(s Secret) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	err = w.SetWriteDeadline(time.Now().Add(time.Second))
	if err == nil {
		_, err = w.WriteString(string(s))
	}
	if err := errors.Join(err, w.Close()); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
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
	if refused(o.buf.String()) != nil {
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
