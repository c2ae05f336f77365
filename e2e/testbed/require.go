package testbed

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/image"
)

// Missing says what a lab needs and this machine does not have, one thing an
// entry, with what to do about it.
func Missing() []string {
	if runtime.GOOS != "linux" {
		return []string{"Linux: hosts are made of its namespaces"}
	}
	var missing []string
	if os.Geteuid() != 0 {
		missing = append(missing, `root: run it with sudo env "PATH=$PATH" "HOME=$HOME"`)
	} else if !hasNetAdmin() {
		missing = append(missing, "the right to make namespaces and mounts: in a container, it must be privileged")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		missing = append(missing, "/dev/net/tun: run modprobe tun")
	}
	if pkgs := image.MissingTools(); len(pkgs) > 0 {
		missing = append(missing, fmt.Sprintf("the packages %s: run go run ./e2e/lab prepare", strings.Join(pkgs, ", ")))
	}
	return missing
}

// hasNetAdmin reports whether this process may administer the system, by the
// capabilities that the kernel says it has.
func hasNetAdmin() bool {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "CapEff:"); ok {
			var caps uint64
			fmt.Sscanf(strings.TrimSpace(rest), "%x", &caps)
			const netAdmin, sysAdmin = 1 << 12, 1 << 21
			return caps&netAdmin != 0 && caps&sysAdmin != 0
		}
	}
	return false
}

// missingError is the failure of [Up] on a machine that can't carry a lab.
type missingError struct{ things []string }

func (e *missingError) Error() string {
	return "this machine can't carry a lab; missing:\n  - " + strings.Join(e.things, "\n  - ")
}

// Require skips the test on a machine that can't carry a lab, saying what is
// missing. In CI, where the environment says CI=true, that is a failure: a test
// that never runs proves nothing.
func Require(t testing.TB) {
	t.Helper()
	missing := Missing()
	if len(missing) == 0 {
		return
	}
	err := &missingError{missing}
	if os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	t.Skip(err)
}

// Start makes a lab for one test, which is removed at its end: nothing of it may
// be left then. If the test fails, the ends of the hosts' logs are in its output.
//
// The environment may name the cache (NIX_BUILDERS_LAB_CACHE) and the mirror for
// a missing image (NIX_BUILDERS_LAB_MIRROR).
func Start(t testing.TB, cfg Config) *Lab {
	t.Helper()
	Require(t)
	removeOrphans(t, cfg.Dir)
	if cfg.Name == "" {
		cfg.Name = fmt.Sprintf("t%d-%x", os.Getpid(), time.Now().UnixNano()&0xffffffff)
	}
	if cfg.Logf == nil {
		cfg.Logf = t.Logf
	}
	FromEnv(&cfg, os.Getenv)
	l, err := Up(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			var logs bytes.Buffer
			for _, h := range l.Hosts() {
				h.writeLogs(&logs, 40)
			}
			t.Logf("logs of lab %s:\n%s", l.Name(), logs.Bytes())
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := l.Down(ctx); err != nil {
			t.Error(err)
		}
		left, err := Leftovers(filepath.Dir(l.dir), l.name)
		if err != nil {
			t.Error(err)
		}
		for _, what := range left {
			t.Errorf("left behind: %s", what)
		}
	})
	return l
}

// removeOrphans removes the labs of tests that were killed before they could,
// which the number of the test's process in the name tells.
func removeOrphans(t testing.TB, parent string) {
	t.Helper()
	entries, err := os.ReadDir(cmp.Or(parent, DefaultDir))
	if err != nil {
		return // there are no labs
	}
	for _, e := range entries {
		var pid, rest int
		if n, _ := fmt.Sscanf(e.Name(), "t%d-%x", &pid, &rest); n != 2 || !e.IsDir() {
			continue
		}
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			continue
		}
		t.Logf("removing lab %s, whose test is gone", e.Name())
		if err := Down(t.Context(), parent, e.Name()); err != nil {
			t.Error(err)
		}
	}
}

// FromEnv takes what the environment says about the machine into cfg.
func FromEnv(cfg *Config, getenv func(string) string) {
	if dir := getenv("NIX_BUILDERS_LAB_CACHE"); dir != "" && cfg.Cache.Dir == "" {
		cfg.Cache.Dir = dir
	}
	if mirror := getenv("NIX_BUILDERS_LAB_MIRROR"); mirror != "" && cfg.Mirror == "" {
		cfg.Mirror = mirror
	}
	if suite := getenv("NIX_BUILDERS_LAB_SUITE"); suite != "" && cfg.Suite == "" {
		cfg.Suite = suite
	}
}
