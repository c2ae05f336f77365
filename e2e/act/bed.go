package act

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/image"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// uid is the user runner's, here and on the hosts.
const uid = 1001

// Config says what bed to make.
type Config struct {
	// Lab is the lab's own configuration. What a bed needs of it is filled in.
	Lab testbed.Config
	// Release makes hosts download nix-builders from a release of this very source.
	// Else the action's input binary has the lab's programs as its default.
	Release bool
}

// Bed is a lab on which workflows run, with the action and the stand-ins of
// others' actions. It goes with the test that started it.
type Bed struct {
	Lab *testbed.Lab

	act       string            // the program
	action    string            // the rendered copy of this repository
	actions   map[string]string // directories of actions by OWNER/REPOSITORY@REF
	authority []byte            // certificate that makes hosts believe in our Internet
	internet  string            // address of the host that is it
	hosts     atomic.Int32      // booted so far
	runs      atomic.Int32      // started so far
}

// Start makes a bed for the test.
func Start(t testing.TB, cfg Config) *Bed {
	t.Helper()
	cfg.Lab.Shared = true
	cfg.Lab.Programs = testbed.Programs("./e2e/act/shim", "./e2e/act/internet")
	if cfg.Lab.Control.Policy == nil {
		policy, err := fleet.Policy()
		if err != nil {
			t.Fatal(err)
		}
		cfg.Lab.Control.Policy = &policy
	}
	b := &Bed{Lab: testbed.Start(t, cfg.Lab)}
	if err := b.furnish(t.Context(), cfg, t.Logf); err != nil {
		t.Fatal(err)
	}
	return b
}

// dir is a path in the directory that every host sees.
func (b *Bed) dir(elem ...string) string {
	return filepath.Join(append([]string{b.Lab.Shared()}, elem...)...)
}

func (b *Bed) furnish(ctx context.Context, cfg Config, logf func(string, ...any)) error {
	module, err := image.FindModule(".")
	if err != nil {
		return err
	}
	cache := cfg.Lab.Cache
	cache.Logf = logf
	if cache.Dir == "" {
		cache.Dir = os.Getenv("NIX_BUILDERS_LAB_CACHE")
	}
	if cache.Dir == "" {
		if cache.Dir, err = image.DefaultDir(); err != nil {
			return err
		}
	}
	program, err := cache.Act(ctx, module)
	if err != nil {
		return err
	}
	for _, d := range []string{"bin", "tls", "release", "runs"} {
		if err := os.Mkdir(b.dir(d), 0o755); err != nil {
			return err
		}
	}
	b.act = b.dir("bin", "act")
	if err := image.CopyFile(program, b.act); err != nil {
		return err
	}
	b.action = b.dir("action")
	if err := copyTree(ctx, module, b.action); err != nil {
		return fmt.Errorf("copy the action: %w", err)
	}
	if cfg.Release {
		err = b.release(ctx, cache)
	} else {
		err = b.useLabPrograms()
	}
	if err != nil {
		return err
	}
	if err := render(b.action); err != nil {
		return fmt.Errorf("render the action: %w", err)
	}
	if b.actions, err = b.standIns(module); err != nil {
		return err
	}
	return b.openInternet(ctx)
}

// useLabPrograms makes the lab's own programs those that the action installs.
func (b *Bed) useLabPrograms() error {
	dir := b.dir("programs")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"nix-builders", "tailscaled", "tailscale"} {
		if err := image.CopyFile(filepath.Join(b.dir(), "..", "bin", name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	for _, name := range []string{"action.yml", "plan/action.yml"} {
		if err := edit(filepath.Join(b.action, name), setBinary(dir)); err != nil {
			return err
		}
	}
	return nil
}

// openInternet starts what hosts find under names of the Internet.
func (b *Bed) openInternet(ctx context.Context) error {
	h := b.Lab.Host(testbed.Coordinator)
	b.internet = h.IP().String()
	var err error
	if b.authority, err = makeCertificates(b.dir("tls"), tailscaleNames); err != nil {
		return err
	}
	control := strings.TrimPrefix(b.Lab.LoginServer(), "http://")
	cmd := h.Command(context.WithoutCancel(ctx), append([]string{
		"internet", b.internet, control, b.dir("tls", "cert.pem"), b.dir("tls", "key.pem"), b.dir("release"),
	}, tailscaleNames...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		return fmt.Errorf("start the lab's Internet: %w", err)
	}
	go cmd.Wait() // it ends with the lab
	return nil
}

// tailscaleNames are what nodes and their CLI call Tailscale's servers.
var tailscaleNames = []string{"controlplane.tailscale.com", "login.tailscale.com", "api.tailscale.com"}

// mirror is where hosts find releases.
func (b *Bed) mirror() string { return "http://" + b.internet + ":8000" }

// boot boots a fresh host for a job.
func (b *Bed) boot(ctx context.Context, j *Job, w Workflow) (*testbed.Host, error) {
	name := fmt.Sprintf("runner-%d", b.hosts.Add(1))
	files := map[string]string{
		"etc/resolv.conf":                 "nameserver " + b.internet + "\n",
		"etc/ssl/certs/lab-authority.pem": string(b.authority),
		// What the machine passes for, for the stand-in that installs Nix.
		"opt/lab/system": system(j.Label) + "\n",
	}
	if w.NoSudo != nil && w.NoSudo(j) {
		files["etc/sudoers.d/runner"] = "# nothing\n"
	}
	return b.Lab.Boot(ctx, testbed.HostSpec{Name: name, Fresh: true, Files: files})
}
